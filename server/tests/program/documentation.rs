//! That `docs/operations.md` tells all settings as they are.

use holdfast_server::config::SETTINGS;

const GUIDE: &str = include_str!("../../../docs/operations.md");

#[test]
fn the_guide_has_every_setting_with_its_flag_variable_and_default() {
    let expected: Vec<_> = SETTINGS
        .iter()
        .map(|setting| {
            let code = |text: Option<String>| text.map_or("–".into(), |text| format!("`{text}`"));
            let flag = setting.flag().map(|flag| format!("--{flag}"));
            let cells = [
                format!("`{}`", setting.key),
                code(flag),
                format!("`{}`", setting.variable()),
                code(setting.default()),
            ];
            format!("| {} |", cells.join(" | "))
        })
        .collect();
    let told: Vec<_> = GUIDE
        .lines()
        .filter(|line| line.contains("`HOLDFASTD_") && line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            format!("| {} |", cells[1..5].join(" | "))
        })
        .collect();
    assert_eq!(told, expected);
}
