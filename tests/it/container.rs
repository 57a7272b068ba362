//! Containers of the image that `scripts/image` builds, by the engine that it found: for the tests
//! that only it runs.

use std::process::Command;

use crate::harness::{Folder, output_of, unique};

/// The engine, about to do this.
pub fn engine(verb: &str) -> Command {
    let words = words("CONTAINER_ENGINE");
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(verb);
    command
}

/// A container of this image, as locked down as it can be.
pub fn run(image: &str, options: &[&str]) -> Command {
    let mut command = engine("run");
    command.args(words("CONTAINER_OPTIONS")).args(options).arg(image);
    command
}

fn words(variable: &str) -> Vec<String> {
    let value = std::env::var(variable);
    let value = value.unwrap_or_else(|_| panic!("{variable}: scripts/image runs these"));
    value.split_whitespace().map(str::to_owned).collect()
}

/// An image with migrations of its own. It is gone when the test is.
pub struct Image {
    pub name: String,
}

impl Image {
    pub fn with(migrations: &Folder) -> Image {
        let (name, recipe) = (unique("premigrate"), Folder::empty());
        let text = "FROM premigrate\nCOPY . /migrations\nENV PREMIGRATE_DIR=/migrations\n";
        recipe.write("Dockerfile", text);
        let mut build = engine("build");
        build
            .args(words("CONTAINER_BUILD_OPTIONS"))
            .args(["--quiet", "--tag", &name, "--file"])
            .arg(recipe.path.join("Dockerfile"))
            .arg(&migrations.path);
        let output = output_of(&mut build);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        Image { name }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = output_of(engine("rmi").arg(&self.name));
    }
}
