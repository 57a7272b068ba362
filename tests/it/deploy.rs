//! The guides in `docs/deploy`: each file in them is read as its platform reads it, and each of its
//! command lines that names premigrate is run, in the image of the example.
//!
//! The app is a small script here; `drizzle/example.rs` runs the real one.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use serde_json::{Map, Value, json};

use crate::container;
use crate::docs::{Block, Project, blocks, project, words};
use crate::harness::{Folder, bare, needs, output_of, unique};
use crate::health::free_port;

const DOCKERFILE: &str = "examples/node-drizzle/Dockerfile";

/// What runs in a container: its command line, and the variables that its file sets.
#[derive(Debug, Default)]
struct Container {
    words: Vec<String>,
    variables: Vec<(String, String)>,
}

/// What an image runs by default.
struct Image {
    entrypoint: Vec<String>,
    command: Vec<String>,
    healthcheck: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Image {
    fn of_example() -> Image {
        let dockerfile = project(DOCKERFILE);
        let check = dockerfile.lines().find(|line| line.starts_with("HEALTHCHECK ")).unwrap();
        let variables = dockerfile.lines().filter_map(|line| line.strip_prefix("ENV "));
        Image {
            entrypoint: words(&dockerfile, "ENTRYPOINT "),
            command: words(&dockerfile, "CMD "),
            healthcheck: words(&check[check.find("CMD ").unwrap()..], "CMD "),
            variables: variables.flat_map(|line| line.split(' ')).map(assignment).collect(),
        }
    }

    /// What runs if the platform gives other words for the entrypoint or the command.
    fn run(&self, entrypoint: Option<Vec<String>>, command: Option<Vec<String>>) -> Vec<String> {
        match (entrypoint, command) {
            // Another entrypoint drops the image's command.
            (Some(entrypoint), command) => [entrypoint, command.unwrap_or_default()].concat(),
            (None, Some(command)) => [self.entrypoint.clone(), command].concat(),
            (None, None) => [self.entrypoint.clone(), self.command.clone()].concat(),
        }
    }
}

fn assignment(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').expect(text);
    (name.to_owned(), value.to_owned())
}

fn split(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn list(value: Option<&Value>) -> Option<Vec<String>> {
    let words = value?.as_array().expect("a list of words").iter();
    Some(words.map(|word| word.as_str().expect("a word").to_owned()).collect())
}

/// The documents of a file.
fn parse(Block { language, content, place, .. }: &Block) -> Vec<Value> {
    match language.as_str() {
        "yaml" => serde_yaml_ng::Deserializer::from_str(content)
            .map(serde::Deserialize::deserialize)
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("{place}: {error}")),
        "toml" => vec![toml::from_str(content).unwrap_or_else(|error| panic!("{place}: {error}"))],
        other => panic!("{place}: a file in {other:?}, of which no test knows what to do"),
    }
}

/// The variables of a container: Compose has an object, Kubernetes a list. A reference to a secret is empty.
fn variables(container: &Map<String, Value>) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if let Some(Value::Object(all)) = container.get("environment") {
        return all.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    }
    let all = container.get("env").and_then(Value::as_array).into_iter().flatten();
    all.map(|one| (text(&one["name"]), text(one.get("value").unwrap_or(&Value::Null)))).collect()
}

/// The containers anywhere in a document, in its order.
fn containers(value: &Value, image: &Image) -> Vec<Container> {
    let mut found = Vec::new();
    let Value::Object(object) = value else {
        let items = value.as_array().into_iter().flatten();
        return items.flat_map(|item| containers(item, image)).collect();
    };
    let is_ours = object.get("image") == Some(&"notes".into()) || object.contains_key("build");
    if is_ours && object.keys().any(|key| key.starts_with("env")) && !object.contains_key("proxy") {
        let of_compose = object.contains_key("environment");
        let [entrypoint, command] =
            if of_compose { ["entrypoint", "command"] } else { ["command", "args"] };
        let words = image.run(list(object.get(entrypoint)), list(object.get(command)));
        found.push(Container { words, variables: variables(object) });
    }
    for (key, value) in object {
        match key.as_str() {
            "release_command" | "preDeployCommand" => {
                let text = value.as_str().or_else(|| value.get(0)?.as_str());
                let command = split(text.expect("a command"));
                // Some platforms keep the entrypoint, others replace it.
                for words in [image.run(None, Some(command.clone())), command] {
                    found.push(Container { words, ..Container::default() });
                }
            }
            "test" => {
                let words = list(Some(value)).expect("a health check");
                assert_eq!(words[0], "CMD");
                let words = words[1..].to_vec();
                found.push(Container { words, ..Container::default() });
            }
            _ => found.extend(containers(value, image)),
        }
    }
    found
}

/// The pages anywhere in a document that are asked for.
fn pages(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("path" | "healthCheckPath" | "healthcheckPath", Value::String(page)) => {
                        found.push(page.clone());
                    }
                    _ => found.extend(pages(value)),
                }
            }
        }
        Value::Array(items) => found.extend(items.iter().flat_map(pages)),
        _ => {}
    }
    found
}

/// Listens, and tells every client that all is well.
fn healthy_server() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    port
}

/// Runs a container in a project, which has at its top what the image has at `/`.
fn run(container: &Container, image: &Image, to: &Project, place: &str) {
    let Container { words, .. } = container;
    let is_check = words.iter().any(|word| word == "healthcheck");
    let port = if is_check { healthy_server() } else { free_port() }.to_string();
    let mut names_database = false;
    let mut run = bare();
    run.command.current_dir(&to.folder.path);
    let path = std::env::var("PATH").unwrap();
    let mut run =
        run.env("PATH", format!("{}:{path}", to.bin().display())).env("PREMIGRATE_DIR", "drizzle");
    for (name, value) in image.variables.iter().chain(&container.variables) {
        let value = match name.as_str() {
            name if name.ends_with("DATABASE_URL_FILE") => {
                to.folder.write("secret", &to.database.url);
                "secret".to_owned()
            }
            name if name.ends_with("DATABASE_URL") => to.database.url.clone(),
            _ => value.replace("3000", &port),
        };
        names_database |= name.contains("DATABASE_URL");
        run = run.env(name, value);
    }
    // Platforms set it outside the file.
    if !names_database {
        run = run.env("DATABASE_URL", &to.database.url);
    }
    let us = env!("CARGO_BIN_EXE_premigrate");
    let words = words.iter().map(|word| match word.as_str() {
        "/premigrate" | "/usr/local/bin/premigrate" => us.to_owned(),
        _ => word.replace("3000", &port),
    });
    let words: Vec<String> = words.collect();
    // The first word is the program: premigrate, or an app that starts without it.
    let run = if words[0] == us {
        words[1..].iter().fold(run, |run, word| run.arg(word))
    } else {
        let app = words.iter().fold(run.arg("--"), |run, word| run.arg(word));
        app.env("PREMIGRATE_SKIP", "1")
    };
    let run = run.run();
    let expected = match words.iter().any(|word| word == "node") {
        true => "Listening on port 3000\n",
        false if is_check => "healthy",
        false => "",
    };
    assert!(
        run.code == 0 && run.stdout.starts_with(expected),
        "{place}: {words:?} exits with {}\n{}{}",
        run.code,
        run.stdout,
        run.stderr
    );
    if !is_check {
        assert_eq!(to.database.tables(), ["documents", "tags"], "{place}: {words:?}");
    }
}

/// Runs a guide's files, each in a project of its own, and says how many commands they have.
fn run_guide(guide: &str) -> usize {
    let (image, app) = (Image::of_example(), project("examples/node-drizzle/server.js"));
    let mut count = 0;
    for block in blocks(guide) {
        let to = Project::new();
        for document in parse(&block) {
            for page in pages(&document) {
                assert!(app.contains(&format!("\"GET {page}\"")), "{}: {page}", block.place);
            }
            for container in containers(&document, &image) {
                run(&container, &image, &to, &block.place);
                count += 1;
            }
        }
    }
    count
}

#[test]
fn the_commands_of_the_guide_to_compose_run() {
    // The app, its health check; the migrations, and the app that waits.
    assert_eq!(run_guide("docs/deploy/compose.md"), 4);
}

#[test]
fn the_commands_of_the_guide_to_kubernetes_run() {
    // The entrypoint; the init container and its app; the job, and the app that waits.
    assert_eq!(run_guide("docs/deploy/kubernetes.md"), 5);
}

/// A pod that podman runs from a file for Kubernetes. It is gone when the test is.
struct Pod(String);

impl Pod {
    /// Each container runs once, and reaches the databases of the tests.
    fn play(mut spec: Value) -> Pod {
        spec["restartPolicy"] = "Never".into();
        spec["hostNetwork"] = true.into();
        let (name, folder) = (unique("notes").replace('_', "-"), Folder::empty());
        let metadata = json!({ "name": name });
        let file = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
        folder.write("pod.yaml", file.to_string());
        // Inside a container, such as a CI job's, it may not raise limits.
        let limits = r#"default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]"#;
        folder.write("containers.conf", format!("[containers]\n{limits}\n"));
        let pod = Pod(name);
        let mut play = container::engine("kube");
        play.arg("play").arg(folder.path.join("pod.yaml"));
        let output = output_of(play.env("CONTAINERS_CONF", folder.path.join("containers.conf")));
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
        pod
    }

    /// What a container prints until it ends with 0.
    fn output(&self, container: &Value) -> String {
        let name = format!("{}-{}", self.0, container["name"].as_str().unwrap());
        let read = |verb: &str| {
            let output = output_of(container::engine(verb).arg(&name));
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
        };
        let ([code, _], said) = (read("wait"), read("logs").concat());
        assert_eq!(code.trim(), "0", "{name}: {said}");
        said
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = output_of(container::engine("pod").args(["rm", "--force", "--time", "0", &self.0]));
    }
}

/// Changes in a container of a pod what cannot be the same here.
fn adapt(container: &mut Value, notes: &str, database: &str) {
    assert_eq!(container["image"], "notes");
    let [command, args] = ["command", "args"].map(|key| list(container.get(key)));
    let words = Image::of_example().run(command, args);
    let words = words.iter().map(|word| match word.as_str() {
        // The image has no other program.
        "node" => "/premigrate",
        "server.js" => "list",
        word => word,
    });
    container["command"] = words.collect();
    container["image"] = notes.into();
    for variable in container["env"].as_array_mut().into_iter().flatten() {
        if variable["valueFrom"]["secretKeyRef"].is_object() {
            *variable = json!({ "name": variable["name"], "value": database });
        }
    }
    let container = container.as_object_mut().unwrap();
    container.remove("args");
    // podman publishes none on the host's network.
    container.remove("ports");
}

#[test]
#[ignore = "scripts/image builds the image, and runs this with podman"]
fn the_pods_of_the_guide_to_kubernetes_run_in_podman() {
    let notes = container::Image::with(&Project::new().drizzle);
    let mut pods = Vec::new();
    for mut block in blocks("docs/deploy/kubernetes.md") {
        let (to, port) = (Project::new(), free_port());
        block.content = block.content.replace("3000", &port.to_string());
        for document in parse(&block) {
            let (kind, spec) = match document.pointer("/spec/template/spec") {
                Some(spec) => (document["kind"].as_str().unwrap(), spec),
                None if document.get("containers").is_some() => ("containers", &document),
                None => continue,
            };
            let mut spec = spec.clone();
            for key in ["initContainers", "containers"] {
                let containers = spec.get_mut(key).and_then(Value::as_array_mut);
                for container in containers.into_iter().flatten() {
                    adapt(container, &notes.name, &to.database.url);
                }
            }
            let pod = Pod::play(spec.clone());
            let said = pod.output(&spec["containers"][0]);
            assert_eq!(to.database.tables(), ["documents", "tags"], "{}: {said}", block.place);
            let starts = said.contains("premigrate: starting /premigrate\n");
            pods.push(format!("{kind}{}", if starts { ", and the app" } else { "" }));
        }
    }
    let app = "Deployment, and the app";
    assert_eq!(pods, [app, "containers", "Job", app]);
}

#[test]
fn the_commands_of_the_guide_to_platforms_run_with_and_without_the_images_entrypoint() {
    // Fly.io, Railway and Render; Kamal has none.
    assert_eq!(run_guide("docs/deploy/platforms.md"), 6);
}

#[test]
fn the_example_image_runs_premigrates_own_commands_and_checks_itself() {
    let (image, to) = (Image::of_example(), Project::new());
    let run = |words: Vec<String>| {
        run(&Container { words, ..Container::default() }, &image, &to, DOCKERFILE);
    };
    run(image.run(None, None));
    run(image.run(None, Some(split("/premigrate status"))));
    run(image.healthcheck.clone());
}

/// The values of a key in a unit file.
fn values<'unit>(unit: &'unit str, key: &str) -> Vec<&'unit str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_unit_of_the_guide_to_systemd_is_valid_and_its_command_runs() {
    needs("systemd");
    let blocks = blocks("docs/deploy/systemd.md");
    let [Block { language, content, place, .. }] = &blocks[..] else { panic!("one unit") };
    assert_eq!(language, "ini");
    let (image, to) = (Image::of_example(), Project::new());
    let [command] = values(content, "ExecStart")[..] else { panic!("one command") };
    let environment = values(content, "Environment").into_iter().map(assignment);
    let container = Container { words: split(command), variables: environment.collect() };
    run(&container, &image, &to, place);

    let us = env!("CARGO_BIN_EXE_premigrate");
    // What it names has to be on this machine.
    let unit = content.replace("/usr/local/bin/premigrate", us).replace("/opt/notes", "/");
    let unit = unit.replace("User=notes", "User=root");
    to.folder.write("notes.service", &unit);
    let verify = |name: &str| {
        let path = to.folder.path.join(name);
        output_of(Command::new("systemd-analyze").arg("verify").arg(path))
    };
    let output = verify("notes.service");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("notes.service")).collect();
    assert!(output.status.success() && ours.is_empty(), "{place}: {said}");

    // It would have said so.
    to.folder.write("wrong.service", unit.replace("Restart=", "Restrat="));
    let said = verify("wrong.service").stderr;
    assert!(String::from_utf8_lossy(&said).contains("Restrat"));
}

#[test]
fn the_unit_is_not_started_again_after_a_code_that_another_attempt_cannot_cure() {
    let unit = project("docs/deploy/systemd.md");
    let [kept] = values(&unit, "RestartPreventExitStatus")[..] else { panic!("one line") };
    let job = project("docs/deploy/kubernetes.md");
    let (_, codes) = job.split_once("values: [").unwrap();
    let codes: Vec<&str> = codes.split(']').next().unwrap().split(", ").collect();
    assert_eq!(split(kept)[..codes.len()], codes);
}
