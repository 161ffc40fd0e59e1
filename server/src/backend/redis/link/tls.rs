//! TLS, by the files that are set.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use tokio::{fs, net::TcpStream, task::spawn_blocking};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
};

use crate::backend::redis::url::Tls;

/// Speaks TLS with the server of this name.
///
/// # Errors
/// What is wrong with the files or the server's certificate.
pub(super) async fn connect(
    tls: &Tls,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| format!("`{host}` cannot be the name in a certificate"))?;
    let connector = TlsConnector::from(Arc::new(config(tls).await?));
    connector.connect(name, stream).await.map_err(|error| error.to_string())
}

/// Read for each connection, so that renewed files are taken.
async fn config(tls: &Tls) -> Result<ClientConfig, String> {
    let roots = match &tls.ca {
        Some(file) => trusted(file).await?,
        None => systems().await?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let Some((cert, key)) = &tls.cert else {
        return Ok(config.with_no_client_auth());
    };
    let private_key = PrivateKeyDer::from_pem_slice(&read(key).await?);
    let private_key =
        private_key.map_err(|_| format!("{} has no private key in PEM", key.display()))?;
    let config = config.with_client_auth_cert(certificates(cert).await?, private_key);
    config.map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))
}

async fn trusted(file: &Path) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file).await? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(Arc::new(roots))
}

/// The authorities that the system trusts: they are many, and read once.
async fn systems() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let load = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    let roots = spawn_blocking(move || ROOTS.get_or_init(load).clone()).await;
    let roots = roots.map_err(|error| error.to_string())?;
    match roots.is_empty() {
        true => Err("the system trusts no authorities: name one with the option `ca`".into()),
        false => Ok(roots),
    }
}

async fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(file).await?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{} has no certificates in PEM", file.display())),
    }
}

async fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).await.map_err(|error| format!("cannot read {}: {error}", file.display()))
}
