//! `AdminService`.

use std::pin::Pin;

use async_stream::try_stream;
use futures::{Stream, StreamExt as _, future::Either};
use holdfast_proto::v1::{
    CompactRequest, CompactResponse, ExportRequest, ExportResponse, GetServerInfoRequest,
    GetServerInfoResponse, GetStatsRequest, GetStatsResponse, ImportRequest, ImportResponse,
    TransferPart, admin_service_server::AdminService, get_server_info_response,
};
use tokio::runtime::Handle;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Services,
    status::Failure,
    transfer::{self, Importer},
    validate::{self, MAX_BATCH, MAX_KEY_BYTES},
};
use crate::{
    backend::Revision,
    store::{MAX_REVISION_BYTES, MAX_REVISION_KEYS},
};

#[tonic::async_trait]
impl AdminService for Services {
    async fn get_server_info(
        &self,
        _: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        Ok(Response::new(self.server_info().await?))
    }

    async fn get_stats(
        &self,
        _: Request<GetStatsRequest>,
    ) -> Result<Response<GetStatsResponse>, Status> {
        Ok(Response::new(self.stats().await?))
    }

    async fn compact(
        &self,
        request: Request<CompactRequest>,
    ) -> Result<Response<CompactResponse>, Status> {
        Ok(Response::new(self.compact_log(&request.into_inner()).await?))
    }

    type ExportStream = Pin<Box<dyn Stream<Item = Result<ExportResponse, Status>> + Send>>;

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let parts = self.exported(&request.into_inner())?;
        let answer = |part: Result<_, _>| part.map(|part| ExportResponse { part: Some(part) });
        Ok(Response::new(parts.map(answer).boxed()))
    }

    async fn import(
        &self,
        request: Request<Streaming<ImportRequest>>,
    ) -> Result<Response<ImportResponse>, Status> {
        Ok(Response::new(self.imported(request.into_inner()).await?))
    }
}

impl Services {
    async fn server_info(&self) -> Result<GetServerInfoResponse, Failure> {
        let backend = self.store.backend();
        let limits = get_server_info_response::Limits {
            max_value_bytes: self.limits.max_value_bytes as u64,
            max_key_bytes: MAX_KEY_BYTES as u64,
            max_batch_keys: MAX_BATCH as u64,
            max_revision_keys: MAX_REVISION_KEYS as u64,
            max_revision_bytes: MAX_REVISION_BYTES as u64,
            max_request_bytes: self.limits.max_request_bytes as u64,
        };
        Ok(GetServerInfoResponse {
            time_ms: backend.now_ms().await?,
            version: self.info.version.clone(),
            server_id: self.info.server_id.clone(),
            backend: backend.scheme().into(),
            durability: backend.durability().into(),
            started_at_ms: self.info.started_at_ms,
            limits: Some(limits),
        })
    }

    async fn stats(&self) -> Result<GetStatsResponse, Failure> {
        let stats = self.store.stats().await?;
        Ok(GetStatsResponse {
            time_ms: stats.time_ms,
            namespaces: stats.namespaces,
            keys: stats.usage.keys,
            bytes: stats.usage.bytes,
            log_events: stats.log.events,
            log_bytes: stats.log.bytes,
            commands: stats.commands,
            commits: stats.commits,
            expired: stats.expired,
            watches: stats.watches,
            tasks: Handle::current().metrics().num_alive_tasks() as u64,
        })
    }

    fn exported(
        &self,
        request: &ExportRequest,
    ) -> Result<impl Stream<Item = Result<TransferPart, Status>> + Send + use<>, Failure> {
        let names = request.namespaces.iter().map(|name| validate::namespace(name));
        let names: Vec<_> = names.collect::<Result<_, _>>()?;
        let store = self.store.clone();
        let parts = match names.is_empty() {
            true => Either::Left(transfer::export_all(store)),
            false => Either::Right(transfer::export(store, names)),
        };
        let stopping = self.stopping.clone();
        Ok(try_stream! {
            tokio::pin!(parts);
            loop {
                let part = tokio::select! {
                    part = parts.next() => part,
                    () = stopping.cancelled() => Some(Err(Failure::stopping().into())),
                };
                match part {
                    Some(part) => yield part?,
                    None => return,
                }
            }
        })
    }

    async fn imported(
        &self,
        mut requests: Streaming<ImportRequest>,
    ) -> Result<ImportResponse, Status> {
        let mut importer = Importer::new(self.store.clone(), self.limits);
        loop {
            let request = tokio::select! {
                request = requests.message() => request?,
                () = self.stopping.cancelled() => return Err(Failure::stopping().into()),
            };
            match request {
                Some(request) => importer.take(request).await?,
                None => return importer.finish(),
            }
        }
    }

    async fn compact_log(&self, request: &CompactRequest) -> Result<CompactResponse, Failure> {
        let name = validate::namespace(&request.namespace)?;
        let tip = self.store.compact(&name, Revision(request.through_revision)).await?;
        Ok(CompactResponse {
            revision: tip.revision.0,
            time_ms: tip.time_ms,
            compacted_revision: tip.compacted.0,
        })
    }
}
