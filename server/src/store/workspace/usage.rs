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
