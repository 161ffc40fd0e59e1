//! Who the client says it is.

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use crate::Error;

/// What every request says about its sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    bearer: Option<MetadataValue<Ascii>>,
}

impl Credentials {
    pub(crate) fn bearer(token: &str) -> Result<Self, Error> {
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| Error::configuration("the token has characters no header may have"))?;
        bearer.set_sensitive(true);
        Ok(Self { bearer: Some(bearer) })
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}
