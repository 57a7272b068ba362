//! What `scripts/bench` decides, and what it writes. To measure takes minutes, and is no test.

use std::path::Path;
use std::process::Command;

use expect_test::expect_file;

use crate::harness::{Folder, needs, output_of};

/// Runs a program in `tests/bench` that needs no packages.
fn node(arguments: &[&Path]) {
    needs("Node");
    let output = output_of(Command::new("node").args(arguments));
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    assert!(output.status.success(), "{}", said.concat());
}

fn project(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn a_benchmark_chooses_orders_and_judges_as_its_own_tests_say() {
    node(&[Path::new("--test"), &project("tests/bench/bench.test.mjs")]);
}

/// With `UPDATE_EXPECT=1`, they are made anew.
#[test]
fn the_page_and_the_pictures_of_a_benchmark_are_made_of_its_figures() {
    for folder in ["tests/bench/invented", "docs"] {
        let folder = project(folder);
        let figures = folder.join("benchmarks.json");
        let names = ["benchmarks.md", "benchmarks-light.svg", "benchmarks-dark.svg"];
        if !figures.exists() {
            let made = names.iter().filter(|name| folder.join(name).exists());
            assert_eq!(made.count(), 0, "{} is missing", figures.display());
            continue;
        }
        let made = Folder::empty();
        node(&[&project("tests/bench/report.mjs"), &figures, &made.path]);
        for name in names {
            let text = std::fs::read_to_string(made.path.join(name)).expect("what was made");
            expect_file![folder.join(name)].assert_eq(&text);
        }
    }
}
