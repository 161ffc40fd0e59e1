//! The programs of this workspace, as tests start them.

use std::{env, path::PathBuf, process::Command};

/// A program, built from the sources as they are, in the profile of the test that asks.
pub fn built(name: &str) -> PathBuf {
    // This test is TARGET/PROFILE/deps/TEST-…, the program TARGET/PROFILE/NAME.
    let this = env::current_exe().expect("a test knows its name");
    let directory = this.ancestors().nth(2).expect("a test is in the target directory");
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells a test of its package it told no build script before: some would run again, and all that needs
    // them be compiled anew.
    for (variable, _) in env::vars_os() {
        let is_of_package = variable.to_str().is_some_and(|variable| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "OUT_DIR"].iter().any(|it| variable.starts_with(it))
        });
        if is_of_package {
            cargo.env_remove(variable);
        }
    }
    let built = cargo
        .args(["build", "--quiet", "--workspace", "--bin", name, "--profile", profile])
        .arg("--target-dir")
        .arg(directory.parent().expect("a profile is in the target directory"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.expect("cargo runs").success(), "{name} cannot be built");
    directory.join(name).with_extension(env::consts::EXE_EXTENSION)
}
