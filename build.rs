//! Compiles `proto/` to Rust and to a descriptor set, without `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: [&str; 10] = [
    "admin",
    "error",
    "kv",
    "lease",
    "lock",
    "namespace",
    "pipeline",
    "transaction",
    "types",
    "watch",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = PROTOS.map(|name| format!("proto/holdfast/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("holdfast.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::WholeCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
