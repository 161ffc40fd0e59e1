//! How much a namespace holds, and may hold.

use super::{
    Now, Workspace,
    seen::Seen,
    slots::{Before, Slot},
};
use crate::{
    backend::{Usage, entry_bytes},
    store::error::Refusal,
};

impl Workspace<'_> {
    /// Refuses what a quota does not allow.
    pub(super) fn check_quotas(
        &self,
        (added, removed): (Usage, Usage),
    ) -> Result<(), Refusal<Seen>> {
        for (quota, limit, now, added, removed) in [
            (
                "quota_max_keys",
                self.settings.quota_max_keys,
                self.usage.keys,
                added.keys,
                removed.keys,
            ),
            (
                "quota_max_bytes",
                self.settings.quota_max_bytes,
                self.usage.bytes,
                added.bytes,
                removed.bytes,
            ),
        ] {
            if let Some(limit) = limit
                && (now + added).saturating_sub(removed) > limit
                && added > removed
            {
                return Err(Refusal::QuotaExceeded { quota, limit });
            }
        }
        Ok(())
    }

    /// How much there may have been before, for all of it to keep to the quotas; nothing where there are none, or it adds nothing.
    pub fn most_before(&self) -> Option<Usage> {
        let most = |quota: Option<u64>, before: u64, now: u64| {
            let added = now.checked_sub(before).filter(|added| *added > 0);
            quota.zip(added).map(|(quota, added)| quota.saturating_sub(added).max(before))
        };
        let (before, now) = (self.tip.usage, self.usage);
        let keys = most(self.settings.quota_max_keys, before.keys, now.keys);
        let bytes = most(self.settings.quota_max_bytes, before.bytes, now.bytes);
        let any = |most: Option<u64>| most.unwrap_or(u64::MAX);
        (keys.is_some() || bytes.is_some()).then(|| Usage { keys: any(keys), bytes: any(bytes) })
    }

    /// What the command at hand adds and removes.
    pub(super) fn difference(&self) -> (Usage, Usage) {
        let (mut added, mut removed) = (Usage::default(), Usage::default());
        for (place, now) in &self.current {
            let Slot { key, before, .. } = &self.slots[*place];
            if key.is_internal() {
                continue;
            }
            if let Now::Written(draft, _) = now {
                added.keys += 1;
                added.bytes += entry_bytes(key, &draft.content_type, &draft.value);
            }
            let before = match before {
                Before::Absent => continue,
                Before::Stored(stored) => entry_bytes(key, &stored.content_type, &stored.value),
                Before::Written(_, write) => match self.groups.writes[*write].op.draft() {
                    Some(draft) => entry_bytes(key, &draft.content_type, &draft.value),
                    None => continue,
                },
            };
            removed.keys += 1;
            removed.bytes += before;
        }
        (added, removed)
    }
}
