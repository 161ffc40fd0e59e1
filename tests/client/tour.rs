//! The README does not lie: every `$ command` of its console blocks is run, in order, and prints what stands
//! there, but for numbers that change from day to day.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    fixture,
    program::{HOLDFAST, Running, tidy},
};

#[test]
fn the_tour_of_the_readme_goes_as_it_says() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let steps = steps(&fs::read_to_string(readme).expect("there is a README"));
    assert!(steps.len() > 10, "the tour has console blocks");
    // A server of its own, for the tour works in the default namespace and counts what is there.
    let terminal = Terminal::new(fixture::start().to_string());
    let mut watches = Vec::new();
    for step in steps {
        if step.command.starts_with("holdfast watch") {
            let watch = Running::new(terminal.command(&step.command));
            let expected = step.output.first().expect("a watch says that it stands");
            assert_eq!(comparable(&watch.line()), comparable(expected), "$ {}", step.command);
            watches.push((watch, step));
        } else {
            let printed = terminal.run(&step.command);
            let expected: Vec<String> = step.output.iter().map(|line| comparable(line)).collect();
            assert_eq!(printed, expected, "$ {}", step.command);
        }
    }
    // What other terminals have done since has reached the watches.
    for (watch, step) in watches {
        for expected in &step.output[1..] {
            assert_eq!(comparable(&watch.line()), comparable(expected), "$ {}", step.command);
        }
    }
}

/// A command and what the README says it prints.
struct Step {
    command: String,
    output: Vec<String>,
}

/// The steps of all blocks that begin with ```` ```console ````. A line that begins with `> ` goes on with the
/// command before it.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut in_console = false;
    let mut in_command = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            in_console = line == "```console";
        } else if in_console {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { command: command.to_owned(), output: Vec::new() });
                in_command = true;
            } else {
                let step = steps.last_mut().expect("a block begins with a command");
                match line.strip_prefix("> ").filter(|_| in_command) {
                    Some(more) => step.command = format!("{}\n{more}", step.command),
                    None => {
                        step.output.push(line.to_owned());
                        in_command = false;
                    }
                }
            }
        }
    }
    steps
}

/// A shell that finds `holdfast`, in a directory of its own.
struct Terminal {
    address: String,
    path: String,
    directory: std::path::PathBuf,
}

impl Terminal {
    fn new(address: String) -> Self {
        let programs = HOLDFAST.parent().expect("a program is in a directory").display();
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tour");
        fs::create_dir_all(&directory).expect("a directory can be made");
        let path = std::env::var("PATH").unwrap_or_default();
        Self { address, path: format!("{programs}:{path}"), directory }
    }

    fn command(&self, command: &str) -> Command {
        // The shell must not stand between a watch and what ends it.
        let script = match command.contains('\n') || command.contains(';') || command.contains('&')
        {
            true => command.to_owned(),
            false => format!("exec {command}"),
        };
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &script])
            .current_dir(&self.directory)
            .env("PATH", &self.path)
            .env("HOLDFAST_ADDR", &self.address)
            .env_remove("HOLDFAST_NAMESPACE")
            .env_remove("HOLDFAST_TOKEN")
            .env_remove("HOLDFAST_CA");
        shell
    }

    /// The lines it prints, standard error among them.
    fn run(&self, command: &str) -> Vec<String> {
        let script = format!("exec 2>&1\n{command}");
        let output = self.command(&script).stdin(Stdio::null()).output().expect("a shell runs");
        let text = String::from_utf8(output.stdout).expect("it prints UTF-8");
        text.lines().map(comparable).collect()
    }
}

/// A line without what changes from run to run: revisions, times, and the rest of a TTL.
fn comparable(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let is_rest = word.strip_suffix("ms").is_some_and(is_number)
            || word.strip_suffix('s').is_some_and(is_number);
        if !is_rest {
            words.push(tidy(word));
        } else if words.last().is_none_or(|last| last != "REST") {
            words.push("REST".to_owned());
        }
    }
    words.join(" ")
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
