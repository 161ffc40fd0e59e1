//! The settings of a namespace.

use serde::{Deserialize, Serialize};

use crate::backend::{LogBounds, LogShape, Revision};

/// What is younger than this is held whatever the bounds, unless the log is over twice its bytes.
const YOUNG_MS: i64 = 30_000;

/// The settings of a namespace; `None` means the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// TTL of entries written without an expiry, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_ttl_ms: Option<u64>,
    /// Most events of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_max_events: Option<u64>,
    /// Greatest age of the log, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_max_age_ms: Option<u64>,
    /// Most bytes of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_max_bytes: Option<u64>,
    /// Most keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_max_keys: Option<u64>,
    /// Most bytes of keys, content types and values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_max_bytes: Option<u64>,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// [`Settings::default_ttl_ms`]
    DefaultTtlMs,
    /// [`Settings::log_max_events`]
    LogMaxEvents,
    /// [`Settings::log_max_age_ms`]
    LogMaxAgeMs,
    /// [`Settings::log_max_bytes`]
    LogMaxBytes,
    /// [`Settings::quota_max_keys`]
    QuotaMaxKeys,
    /// [`Settings::quota_max_bytes`]
    QuotaMaxBytes,
}

impl Setting {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::DefaultTtlMs,
        Self::LogMaxEvents,
        Self::LogMaxAgeMs,
        Self::LogMaxBytes,
        Self::QuotaMaxKeys,
        Self::QuotaMaxBytes,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DefaultTtlMs => "default_ttl_ms",
            Self::LogMaxEvents => "log_max_events",
            Self::LogMaxAgeMs => "log_max_age_ms",
            Self::LogMaxBytes => "log_max_bytes",
            Self::QuotaMaxKeys => "quota_max_keys",
            Self::QuotaMaxBytes => "quota_max_bytes",
        }
    }

    /// The least and the greatest value it can be set to.
    pub fn bounds(self) -> (u64, u64) {
        const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
        match self {
            Self::DefaultTtlMs => (1, 100 * YEAR_MS),
            Self::LogMaxEvents => (1, 1_000_000_000),
            Self::LogMaxAgeMs => (1000, 10 * YEAR_MS),
            Self::LogMaxBytes => (1 << 20, 1 << 40),
            Self::QuotaMaxKeys | Self::QuotaMaxBytes => (0, u64::MAX),
        }
    }
}

impl Settings {
    /// The place of one setting.
    pub fn get_mut(&mut self, setting: Setting) -> &mut Option<u64> {
        match setting {
            Setting::DefaultTtlMs => &mut self.default_ttl_ms,
            Setting::LogMaxEvents => &mut self.log_max_events,
            Setting::LogMaxAgeMs => &mut self.log_max_age_ms,
            Setting::LogMaxBytes => &mut self.log_max_bytes,
            Setting::QuotaMaxKeys => &mut self.quota_max_keys,
            Setting::QuotaMaxBytes => &mut self.quota_max_bytes,
        }
    }

    /// Whether the log is as large as to be looked at.
    pub fn is_log_over(&self, log: LogShape, now_ms: i64) -> bool {
        let bounds = self.log_bounds(now_ms, None);
        log.oldest_ms.is_some_and(|oldest_ms| !bounds.hold((Revision(0), oldest_ms), log))
    }

    /// Whether the namespace may hold only so much.
    pub fn has_quota(&self) -> bool {
        self.quota_max_keys.is_some() || self.quota_max_bytes.is_some()
    }

    /// What the log has to hold at a time, while a revision is being read.
    pub fn log_bounds(&self, now_ms: i64, pinned: Option<Revision>) -> LogBounds {
        let max_bytes = self.log_max_bytes.unwrap_or(256 << 20);
        let max_age_ms = self.log_max_age_ms.unwrap_or(3_600_000);
        LogBounds {
            max_events: self.log_max_events.unwrap_or(1_000_000),
            max_bytes,
            since_ms: now_ms.saturating_sub_unsigned(max_age_ms),
            young_since_ms: now_ms - YOUNG_MS,
            pinned,
            ceiling_bytes: max_bytes.saturating_mul(2),
        }
    }
}
