//! The command that changes the settings of a namespace.

use crate::store::{
    settings::{Setting, Settings},
    workspace::Workspace,
};

/// Changes settings.
#[derive(Debug, Clone)]
pub struct UpdateSettings {
    /// Which, and to what; `None` goes back to the default.
    pub changes: Vec<(Setting, Option<u64>)>,
}

impl UpdateSettings {
    /// The settings after it.
    pub(super) fn run(&self, workspace: &mut Workspace) -> Settings {
        let mut settings = *workspace.settings();
        for (setting, value) in &self.changes {
            *settings.get_mut(*setting) = *value;
        }
        workspace.set_settings(settings);
        settings
    }
}
