//! The messages and services of Holdfast, generated from `proto/holdfast/v1/`.
//!
//! The comments of the `.proto` files are the API reference; they stand again on the items here.

pub mod codec;
pub mod lines;
pub mod one_task;
pub mod whole_file;

/// Package `holdfast.v1`.
pub mod v1 {
    #![allow(
        missing_docs,
        clippy::large_enum_variant,
        rustdoc::bare_urls,
        rustdoc::broken_intra_doc_links,
        rustdoc::invalid_html_tags,
        reason = "generated code"
    )]
    tonic::include_proto!("holdfast.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of all files, as served by gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/holdfast.bin"));
