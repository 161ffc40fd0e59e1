//! `NamespaceService`.

use holdfast_proto::v1::{
    self, ClearNamespaceRequest, ClearNamespaceResponse, DeleteNamespaceRequest,
    DeleteNamespaceResponse, ErrorReason, GetNamespaceRequest, GetNamespaceResponse,
    ListNamespacesRequest, ListNamespacesResponse, NamespaceSettings, UpdateNamespaceRequest,
    UpdateNamespaceResponse, namespace_service_server::NamespaceService,
};
use tonic::{Request, Response, Status};

use super::{
    Services, entry,
    options::Options,
    page_token::{self, Kind},
    path::Path,
    status::Failure,
    validate,
};
use crate::{
    backend::{BackendError, NamespaceInfo, NamespaceName},
    store::{
        Answer, Work,
        command::{Command, Reply, UpdateSettings},
        error::StoreError,
        settings::{Setting, Settings},
    },
};

/// How many namespaces a page has at the most, and how many where none is said.
const PAGE_SIZE: (u32, u32) = (100, 1000);

#[tonic::async_trait]
impl NamespaceService for Services {
    async fn get_namespace(
        &self,
        request: Request<GetNamespaceRequest>,
    ) -> Result<Response<GetNamespaceResponse>, Status> {
        Ok(Response::new(self.namespace(&request.into_inner()).await?))
    }

    async fn list_namespaces(
        &self,
        request: Request<ListNamespacesRequest>,
    ) -> Result<Response<ListNamespacesResponse>, Status> {
        Ok(Response::new(self.namespaces(request.into_inner()).await?))
    }

    async fn update_namespace(
        &self,
        request: Request<UpdateNamespaceRequest>,
    ) -> Result<Response<UpdateNamespaceResponse>, Status> {
        Ok(Response::new(self.update(request.into_inner()).await?))
    }

    async fn clear_namespace(
        &self,
        request: Request<ClearNamespaceRequest>,
    ) -> Result<Response<ClearNamespaceResponse>, Status> {
        Ok(Response::new(self.clear(request.into_inner()).await?))
    }

    async fn delete_namespace(
        &self,
        request: Request<DeleteNamespaceRequest>,
    ) -> Result<Response<DeleteNamespaceResponse>, Status> {
        Ok(Response::new(self.remove(request.into_inner()).await?))
    }
}

impl Services {
    async fn namespace(
        &self,
        request: &GetNamespaceRequest,
    ) -> Result<GetNamespaceResponse, Failure> {
        let name = validate::namespace(&request.namespace)?;
        self.store.count_read();
        let (tip, found) = self.store.namespace_info(&name).await?;
        Ok(GetNamespaceResponse {
            revision: tip.revision.0,
            time_ms: tip.time_ms,
            namespace: found.map(|(info, settings)| encode(&info, &settings)),
        })
    }

    async fn namespaces(
        &self,
        mut request: ListNamespacesRequest,
    ) -> Result<ListNamespacesResponse, Failure> {
        let (default, max) = PAGE_SIZE;
        let page_size = std::mem::take(&mut request.page_size);
        let limit = validate::limit(page_size, default, max, Path::of("page_size"))?;
        let token = std::mem::take(&mut request.page_token);
        let after = page_token::name(Kind::Namespaces, &request, &token)?.map(NamespaceName::new);
        self.store.count_read();
        let time_ms = self.store.backend().now_ms().await?;
        let mut found = self.store.namespaces(&request.prefix, after.as_ref(), limit + 1).await?;
        let mut response = ListNamespacesResponse { time_ms, ..Default::default() };
        if found.len() > limit {
            found.truncate(limit);
            if let Some((last, _)) = found.last() {
                let name = last.name.as_str();
                response.next_page_token = page_token::after_name(Kind::Namespaces, &request, name);
            }
        }
        response.namespaces = found.iter().map(|(info, settings)| encode(info, settings)).collect();
        Ok(response)
    }

    async fn update(
        &self,
        mut request: UpdateNamespaceRequest,
    ) -> Result<UpdateNamespaceResponse, Failure> {
        let name = validate::namespace(&request.namespace)?;
        let changes = changes(&request)?;
        let work = Work::Command(Command::UpdateSettings(UpdateSettings { changes }));
        let options = Options::take_from("UpdateNamespace", &mut request, |it| {
            (&mut it.namespace, &mut it.options)
        });
        let answer = self.submit(&name, options?.submission(work)).await?;
        let Answer { revision, time_ms, reply: Reply::Settings(settings) } = answer else {
            return Err(Failure::internal("settings were answered by what was not asked for"));
        };
        // It has been done: whatever keeps the rest from being read is no refusal.
        let found = self.store.namespace_info(&name).await.map_err(|error| match error {
            StoreError::Backend(problem) => {
                BackendError::OutcomeUnknown(problem.to_string()).into()
            }
            error => error,
        });
        // Others may have changed the settings since.
        let namespace = found?.1.map(|(info, _)| encode(&info, &settings));
        Ok(UpdateNamespaceResponse { revision: revision.0, time_ms, namespace })
    }

    async fn clear(
        &self,
        mut request: ClearNamespaceRequest,
    ) -> Result<ClearNamespaceResponse, Failure> {
        let name = validate::namespace(&request.namespace)?;
        let options = Options::take_from("ClearNamespace", &mut request, |it| {
            (&mut it.namespace, &mut it.options)
        });
        let submission = options?.submission(Work::Clear);
        let Answer { revision, time_ms, reply } = self.submit(&name, submission).await?;
        match reply {
            Reply::Cleared(cleared) => {
                Ok(ClearNamespaceResponse { revision: revision.0, time_ms, cleared })
            }
            _ => Err(Failure::internal("a clear was answered by what it did not ask for")),
        }
    }

    async fn remove(
        &self,
        mut request: DeleteNamespaceRequest,
    ) -> Result<DeleteNamespaceResponse, Failure> {
        let name = validate::namespace(&request.namespace)?;
        let options = Options::take_from("DeleteNamespace", &mut request, |it| {
            (&mut it.namespace, &mut it.options)
        });
        let submission = options?.submission(Work::DeleteNamespace);
        let Answer { revision, time_ms, reply } = self.submit(&name, submission).await?;
        match reply {
            Reply::NamespaceDeleted(deleted) => {
                Ok(DeleteNamespaceResponse { revision: revision.0, time_ms, deleted })
            }
            _ => Err(Failure::internal("a removal was answered by what it did not ask for")),
        }
    }
}

/// Which settings to change, and to what: those that the mask names, else those that are set.
fn changes(request: &UpdateNamespaceRequest) -> Result<Vec<(Setting, Option<u64>)>, Failure> {
    let mut settings = decode(&request.settings.unwrap_or_default());
    let paths = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
    let named = paths.iter().enumerate().map(|(index, path)| named(path, index));
    let named: Vec<Setting> = named.collect::<Result<_, _>>()?;
    let mut changes = Vec::new();
    for setting in Setting::ALL {
        let value = *settings.get_mut(setting);
        let is_taken = if named.is_empty() { value.is_some() } else { named.contains(&setting) };
        if is_taken {
            check(setting, value)?;
            changes.push((setting, value));
        }
    }
    Ok(changes)
}

fn named(path: &str, index: usize) -> Result<Setting, Failure> {
    let known = Setting::ALL.into_iter().find(|setting| setting.name() == path);
    known.ok_or_else(|| {
        let names = Setting::ALL.map(Setting::name).join(", ");
        let problem = format!("{} is no setting; there are {names}", validate::shown(path));
        let mask = Path::of("update_mask");
        Failure::invalid(ErrorReason::InvalidSettings, mask.item_of("paths", index), problem)
    })
}

fn check(setting: Setting, value: Option<u64>) -> Result<(), Failure> {
    let (min, max) = setting.bounds();
    match value {
        Some(value) if !(min..=max).contains(&value) => {
            let problem = format!("is {value}, {min} to {max} are allowed");
            let settings = Path::of("settings");
            let field = settings.field(setting.name());
            Err(Failure::invalid(ErrorReason::InvalidSettings, field, problem))
        }
        _ => Ok(()),
    }
}

/// Settings as a message.
pub(super) fn encode_settings(settings: &Settings) -> NamespaceSettings {
    NamespaceSettings {
        default_ttl_ms: settings.default_ttl_ms,
        log_max_events: settings.log_max_events,
        log_max_age_ms: settings.log_max_age_ms,
        log_max_bytes: settings.log_max_bytes,
        quota_max_keys: settings.quota_max_keys,
        quota_max_bytes: settings.quota_max_bytes,
    }
}

/// All settings of a message, each within its bounds.
pub(super) fn checked_settings(settings: &NamespaceSettings) -> Result<Settings, Failure> {
    let mut settings = decode(settings);
    for setting in Setting::ALL {
        check(setting, *settings.get_mut(setting))?;
    }
    Ok(settings)
}

fn encode(info: &NamespaceInfo, settings: &Settings) -> v1::Namespace {
    v1::Namespace {
        name: info.name.as_str().into(),
        lineage: entry::lineage(info.tip.lineage),
        revision: info.tip.revision.0,
        compacted_revision: info.tip.compacted.0,
        created_at_ms: info.created_at_ms,
        settings: Some(encode_settings(settings)),
        key_count: info.tip.usage.keys,
        byte_count: info.tip.usage.bytes,
    }
}

fn decode(settings: &NamespaceSettings) -> Settings {
    Settings {
        default_ttl_ms: settings.default_ttl_ms,
        log_max_events: settings.log_max_events,
        log_max_age_ms: settings.log_max_age_ms,
        log_max_bytes: settings.log_max_bytes,
        quota_max_keys: settings.quota_max_keys,
        quota_max_bytes: settings.quota_max_bytes,
    }
}
