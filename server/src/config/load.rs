//! Reads the configuration from the command line, the environment and a file.

use std::{
    ffi::OsString,
    fs, mem,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::NonEmptyStringValueParser, value_parser};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{
    Config, Origin, Origins, Problem, Problems,
    settings::{SETTINGS, Setting, VARIABLE_PREFIX},
    task::{self, Task},
};

/// What the program was called to do.
#[derive(Debug)]
pub struct Invocation {
    /// The settings.
    pub config: Config,
    /// What to do with them.
    pub task: Task,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The command line is not understood, or asks for help or the version.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// Settings are unknown or wrong: all that could be found.
    #[error("{0}")]
    Settings(Problems),
}

impl Invocation {
    /// Takes flags before the environment, that before a file, and that before the defaults.
    ///
    /// # Errors
    /// Every unknown or bad setting, whether or not another source overrides it.
    pub fn load(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, LoadError> {
        let flags = command().try_get_matches_from(arguments)?;
        let mut loader = Loader::default();
        let variables = loader.variables(environment);
        if let Some(path) = flags.get_one::<PathBuf>(CONFIG) {
            loader.file(path, Origin::Flag(format!("--{CONFIG}")));
        } else if let Some(path) = &variables.config_file {
            loader.file(path, Origin::Variable(CONFIG_VARIABLE.into()));
        }
        for (setting, text) in variables.settings {
            loader.text(setting, Origin::Variable(setting.variable()), &text);
        }
        loader.flags(&flags);
        let config = loader.finish().map_err(|problems| LoadError::Settings(Problems(problems)))?;
        let task = match task::offline(&flags) {
            _ if flags.get_flag(PRINT_CONFIG) => Task::PrintConfig,
            Some(work) => Task::Offline(work),
            None => Task::Serve,
        };
        Ok(Self { config, task })
    }
}

const CONFIG: &str = "config";
const PRINT_CONFIG: &str = "print-config";
const CONFIG_VARIABLE: &str = "HOLDFASTD_CONFIG";

fn command() -> Command {
    let mut command = Command::new("holdfastd")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The Holdfast server: keeps state for services, over gRPC.")
        .after_help(
            "Every setting can also stand in the file, or in the environment: --log-format is log.format \
             and HOLDFASTD_LOG_FORMAT. Flags come before the environment, and that before the file.",
        )
        .arg(
            Arg::new(CONFIG)
                .long(CONFIG)
                .global(true)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Reads settings from a .toml, .yaml or .yml file [env: HOLDFASTD_CONFIG]"),
        )
        .arg(
            Arg::new(PRINT_CONFIG)
                .long(PRINT_CONFIG)
                .global(true)
                .action(ArgAction::SetTrue)
                .help("Prints the settings as they would be used, and ends"),
        );
    for setting in SETTINGS {
        let Some(flag) = setting.flag() else { continue };
        let mut argument = Arg::new(setting.key)
            .long(flag)
            .global(true)
            .value_name(setting.kind.placeholder())
            .value_parser(NonEmptyStringValueParser::new())
            .help(match setting.default() {
                Some(default) => format!("{} [default: {default}]", setting.help),
                None => setting.help.to_owned(),
            });
        if setting.key.contains('.') {
            argument = argument.help_heading("Settings");
        }
        command = command.arg(argument);
    }
    command.subcommands(task::commands())
}

/// What the environment says.
#[derive(Default)]
struct Variables {
    config_file: Option<PathBuf>,
    settings: Vec<(&'static Setting, String)>,
}

/// Gathers settings, the most important last, and mistakes.
#[derive(Default)]
struct Loader {
    tree: Map<String, Value>,
    origins: Origins,
    problems: Vec<Problem>,
}

impl Loader {
    fn variables(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Variables {
        let mut variables = Variables::default();
        for (name, value) in environment {
            let name = name.to_string_lossy();
            if !name.starts_with(VARIABLE_PREFIX) {
                continue;
            }
            let setting = SETTINGS.iter().find(|setting| setting.variable() == name);
            match (setting, value.into_string()) {
                (_, Ok(path)) if name == CONFIG_VARIABLE => {
                    variables.config_file = Some(path.into());
                }
                (Some(setting), Ok(text)) => variables.settings.push((setting, text)),
                (Some(setting), Err(_)) => {
                    let origin = Origin::Variable(name.into());
                    self.problem(setting.key, "is not UTF-8".into(), origin);
                }
                (None, _) => {
                    let origin = Origin::Variable("the environment".into());
                    self.problem(&name, "unknown setting".into(), origin);
                }
            }
        }
        variables
    }

    fn file(&mut self, path: &Path, origin: Origin) {
        match read(path) {
            Ok(tree) => self.section(path, "", tree),
            Err(text) => self.problem(&path.display().to_string(), text, origin),
        }
    }

    fn section(&mut self, path: &Path, prefix: &str, section: Map<String, Value>) {
        for (name, value) in section {
            let key = format!("{prefix}{name}");
            let names = names_in(&format!("{key}."));
            match (Setting::find(&key), value) {
                (Some(setting), value) => match setting.kind.check(&value) {
                    Ok(()) => self.value(setting, Origin::File(path.into()), value),
                    Err(text) => self.problem(&key, text, Origin::File(path.into())),
                },
                (None, Value::Object(inner)) if !names.is_empty() => {
                    self.section(path, &format!("{key}."), inner);
                }
                // A section with all of its settings commented out.
                (None, Value::Null) if !names.is_empty() => {}
                (None, _) if !names.is_empty() => {
                    let text = format!("is a section, with {}", names.join(", "));
                    self.problem(&key, text, Origin::File(path.into()));
                }
                (None, _) => {
                    let text =
                        format!("unknown setting; known here: {}", names_in(prefix).join(", "));
                    self.problem(&key, text, Origin::File(path.into()));
                }
            }
        }
    }

    fn flags(&mut self, flags: &ArgMatches) {
        for setting in SETTINGS {
            let Some(flag) = setting.flag() else { continue };
            if let Some(text) = flags.get_one::<String>(setting.key) {
                self.text(setting, Origin::Flag(format!("--{flag}")), text);
            }
        }
    }

    fn text(&mut self, setting: &'static Setting, origin: Origin, text: &str) {
        match setting.kind.parse(text) {
            Ok(value) => self.value(setting, origin, value),
            Err(problem) => self.problem(setting.key, problem, origin),
        }
    }

    /// Takes over a value if it is right by itself.
    fn value(&mut self, setting: &'static Setting, origin: Origin, value: Value) {
        let mut alone = Map::new();
        insert(&mut alone, setting.key, value.clone());
        let problems = match Config::deserialize(Value::Object(alone)) {
            // All defaults are right, so what is wrong is wrong with this value.
            Ok(config) => config.check_values().into_iter().map(|(_, text)| text).collect(),
            Err(error) => vec![error.to_string()],
        };
        if problems.is_empty() {
            insert(&mut self.tree, setting.key, value);
            self.origins.set(setting.key, origin);
            return;
        }
        for text in problems {
            self.problem(setting.key, text, origin.clone());
        }
    }

    fn problem(&mut self, key: &str, text: String, origin: Origin) {
        self.problems.push(Problem { key: key.into(), text, origin });
    }

    fn finish(mut self) -> Result<Config, Vec<Problem>> {
        let mut config = match Config::deserialize(Value::Object(mem::take(&mut self.tree))) {
            Ok(config) => config,
            // Each value was right by itself, so nothing is known that could be wrong with all together.
            Err(error) => {
                self.problem("all settings", error.to_string(), Origin::Default);
                return Err(self.problems);
            }
        };
        config.origins = self.origins;
        for (key, text) in config.check_combinations() {
            self.problems.push(config.problem(key, text));
        }
        if self.problems.is_empty() { Ok(config) } else { Err(self.problems) }
    }
}

fn read(path: &Path) -> Result<Map<String, Value>, String> {
    let parse = match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => parse_toml,
        Some("yaml" | "yml") => parse_yaml,
        _ => return Err("the name of the file must end in .toml, .yaml or .yml".into()),
    };
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    parse(&text)
}

fn parse_toml(text: &str) -> Result<Map<String, Value>, String> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text[..start].lines().count().max(1);
        format!("is not TOML: line {line}: {}", error.message())
    })
}

fn parse_yaml(text: &str) -> Result<Map<String, Value>, String> {
    match serde_saphyr::from_str(text) {
        Ok(Value::Object(tree)) => Ok(tree),
        // A file of comments alone.
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err("is not a YAML mapping of settings".into()),
        // What follows the first line shows the place, which could be a secret.
        Err(error) => {
            let message = error.to_string();
            let first = message.lines().next().unwrap_or_default();
            Err(format!("is not YAML: {}", first.trim_start_matches("error: ")))
        }
    }
}

/// The names that may stand directly in a section.
fn names_in(prefix: &str) -> Vec<&'static str> {
    let mut names: Vec<_> = SETTINGS
        .iter()
        .filter_map(|setting| setting.key.strip_prefix(prefix)?.split('.').next())
        .collect();
    names.dedup();
    names
}

fn insert(tree: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            tree.insert(key.into(), value);
        }
        Some((section, rest)) => {
            let inner = tree.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}
