//! Exports and imports, and what they are made of.

use futures::stream;
use holdfast_proto::v1::{admin_service_client::AdminServiceClient, transfer_part::Part, *};

use super::{failure::Failure, namespace::Namespace};

/// An exported namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    pub start: TransferStart,
    pub items: Vec<TransferItems>,
    pub end: TransferEnd,
}

impl Exported {
    /// What is to be imported for it, under another name.
    pub fn parts(&self, namespace: &Namespace) -> Vec<TransferPart> {
        let start = TransferStart { namespace: namespace.name.clone(), ..self.start.clone() };
        let items = self.items.iter().cloned().map(Part::Items);
        let parts = [Part::Start(start)].into_iter().chain(items).chain([Part::End(self.end)]);
        parts.map(|part| TransferPart { part: Some(part) }).collect()
    }

    pub fn leases(&self) -> Vec<TransferLease> {
        self.items.iter().flat_map(|items| items.leases.clone()).collect()
    }

    pub fn locks(&self) -> Vec<TransferLock> {
        self.items.iter().flat_map(|items| items.locks.clone()).collect()
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.items.iter().flat_map(|items| items.entries.clone()).collect()
    }

    /// Without what is different for every namespace.
    pub fn content(&self) -> (Option<NamespaceSettings>, Vec<TransferItems>, TransferEnd) {
        (self.start.settings, self.items.clone(), self.end)
    }
}

impl Namespace {
    /// The messages of an export of this namespace.
    pub async fn export_parts(&self) -> Vec<Part> {
        self.export_parts_beside(async {}).await
    }

    /// The same; nothing is read of it while something else is done, once it has begun.
    async fn export_parts_beside(&self, other: impl Future<Output = ()>) -> Vec<Part> {
        let request = ExportRequest { namespaces: vec![self.name.clone()] };
        let mut client = AdminServiceClient::new(self.channel.clone());
        let mut stream = client.export(request).await.expect("it begins").into_inner();
        let mut parts = Vec::new();
        let mut other = Some(other);
        while let Some(message) = stream.message().await.expect("it goes on") {
            parts.push(message.part.and_then(|part| part.part).expect("a message has a part"));
            if let Some(other) = other.take() {
                other.await;
            }
        }
        parts
    }

    /// Exports this namespace, which exists.
    pub async fn export(&self) -> Exported {
        self.export_beside(async {}).await
    }

    /// The same; nothing is read of it while something else is done, once it has begun.
    pub async fn export_beside(&self, other: impl Future<Output = ()>) -> Exported {
        let mut parts = self.export_parts_beside(other).await;
        let Some(Part::End(end)) = parts.pop() else { panic!("an export ends with its end") };
        let mut parts = parts.into_iter();
        let Some(Part::Start(start)) = parts.next() else { panic!("it begins with its start") };
        assert_eq!((start.format, &start.namespace), (1, &self.name));
        let items = parts.map(|part| match part {
            Part::Items(items) => items,
            other => panic!("between start and end: {other:?}"),
        });
        Exported { start, items: items.collect(), end }
    }

    /// Imports these parts, whatever namespaces they name.
    pub async fn import_parts(
        &self,
        parts: Vec<TransferPart>,
        replace: bool,
    ) -> Result<ImportResponse, Failure> {
        let requests =
            parts.into_iter().map(move |part| ImportRequest { part: Some(part), replace });
        let mut client = AdminServiceClient::new(self.channel.clone());
        Ok(client.import(stream::iter(requests.collect::<Vec<_>>())).await?.into_inner())
    }

    /// Imports here what another namespace had.
    pub async fn import(
        &self,
        exported: &Exported,
        replace: bool,
    ) -> Result<ImportResponse, Failure> {
        self.import_parts(exported.parts(self), replace).await
    }
}
