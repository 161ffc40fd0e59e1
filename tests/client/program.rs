//! Runs `holdfast`.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{LazyLock, mpsc},
    thread,
};

use serde_json::Value;

use crate::{
    fixture::{self, PATIENCE},
    workspace,
};

/// The program, built from the sources as they are.
pub static HOLDFAST: LazyLock<PathBuf> = LazyLock::new(|| workspace::built("holdfast"));

/// The command line in a namespace of its own.
pub struct Cli {
    pub namespace: String,
}

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Cli {
    pub fn new(test: &str) -> Self {
        Self { namespace: fixture::fresh_name(test) }
    }

    /// Runs `holdfast ARGS`.
    pub fn run(&self, args: &[&str]) -> Done {
        self.run_with_input(args, b"")
    }

    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Done {
        let mut child = self.command(args).spawn().expect("holdfast runs");
        let mut stdin = child.stdin.take().expect("it has an input");
        stdin.write_all(input).expect("it reads its input");
        drop(stdin);
        done(child.wait_with_output().expect("it ends"))
    }

    /// Runs it with a standard output that nobody reads any more.
    pub fn run_unread(&self, args: &[&str]) -> Done {
        let (reader, output) = io::pipe().expect("a pipe can be made");
        drop(reader);
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(output);
        done(command.output().expect("holdfast runs"))
    }

    /// Runs it with variables added to its environment.
    pub fn run_with_variables(&self, variables: &[(&str, &str)], args: &[&str]) -> Done {
        let mut command = self.command(args);
        command.stdin(Stdio::null()).envs(variables.iter().copied());
        done(command.output().expect("holdfast runs"))
    }

    /// Runs it and expects this on the standard output, with the status 0.
    #[track_caller]
    pub fn ok(&self, args: &[&str], stdout: &str) {
        let done = self.run(args);
        assert_eq!((done.status, tidy(&done.stdout).as_str()), (0, stdout), "{args:?}: {done:?}");
    }

    /// Runs it and expects nothing on the standard output, and this on standard error.
    #[track_caller]
    pub fn fails(&self, args: &[&str], status: i32, stderr: &str) {
        let done = self.run(args);
        let found = (done.status, done.stdout.as_str(), tidy(&done.stderr));
        assert_eq!(found, (status, "", stderr.to_owned()), "{args:?}: {done:?}");
    }

    /// Runs it and expects this on the standard output, with a status that is not 0.
    #[track_caller]
    pub fn fails_saying(&self, args: &[&str], status: i32, stdout: &str) {
        let done = self.run(args);
        let found = (done.status, tidy(&done.stdout));
        assert_eq!(found, (status, stdout.to_owned()), "{args:?}: {done:?}");
    }

    /// Runs it with `-o json` and expects this status; the objects of its standard output.
    #[track_caller]
    pub fn json(&self, args: &[&str], status: i32) -> Vec<Value> {
        let done = self.run(&[&["-o", "json"], args].concat());
        assert_eq!(done.status, status, "{args:?}: {done:?}");
        assert_eq!(done.stderr, "", "{args:?}");
        done.stdout.lines().map(parse).collect()
    }

    /// The same for a command that prints one object.
    #[track_caller]
    pub fn json_line(&self, args: &[&str], status: i32) -> Value {
        let mut lines = self.json(args, status);
        assert_eq!(lines.len(), 1, "{args:?}: {lines:?}");
        lines.remove(0)
    }

    /// Starts what goes on until it is stopped.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::new(self.command(args))
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(HOLDFAST.as_path());
        command
            .args(args)
            .env("HOLDFAST_ADDR", format!("http://{}", fixture::shared()))
            .env("HOLDFAST_NAMESPACE", &self.namespace)
            .env_remove("HOLDFAST_TOKEN")
            .env_remove("HOLDFAST_CA")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

fn done(output: Output) -> Done {
    Done {
        status: output.status.code().expect("it is not killed"),
        stdout: String::from_utf8(output.stdout).expect("it prints UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("it prints UTF-8"),
    }
}

/// A program that runs, and its lines as they come, standard error among them. Killed when dropped.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    pub fn new(mut command: Command) -> Self {
        // One pipe for both, so that lines keep their order.
        let (output, input) = io::pipe().expect("a pipe can be made");
        let also_input = input.try_clone().expect("a pipe can be shared");
        command.stdin(Stdio::null()).stdout(input).stderr(also_input);
        let child = command.spawn().expect("the program runs");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// The next line, which must come.
    #[track_caller]
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line comes")
    }

    /// Like Ctrl-C at its terminal.
    pub fn interrupt(&self) {
        self.signal("INT");
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until it has ended; how, and the lines that were not read.
    pub fn end(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().expect("it ends");
        (status, self.lines.iter().collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
pub fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?} is not JSON: {error}"))
}

/// The text with every revision and time as `N`.
pub fn tidy(text: &str) -> String {
    let mut tidied = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, digits) = rest.split_at(start);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        tidied.push_str(before);
        tidied.push_str(if end >= 12 { "N" } else { &digits[..end] });
        rest = &digits[end..];
    }
    tidied + rest
}

/// A file for a test, in a directory that goes away with the build.
pub fn file(name: &str, text: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("a file can be written");
    path.to_str().expect("the path is UTF-8").to_owned()
}

/// Reads everything of a file or pipe.
pub fn read_all(mut from: impl std::io::Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).expect("it can be read");
    text
}
