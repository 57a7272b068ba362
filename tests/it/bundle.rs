//! `bundle`: executables that carry a migrations folder, and what becomes of those that were damaged.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::expect;

use crate::harness::{Database, Folder, Premigrate, Random, Run, bare, output_of, premigrate};

/// An executable of the test's own.
struct Bundle {
    folder: Folder,
    path: PathBuf,
}

impl Bundle {
    /// Made of these migrations.
    fn of(migrations: &Path) -> Bundle {
        let folder = Folder::empty();
        let path = folder.path.join("bundle");
        make(bare(), migrations, &path).exits(0);
        Bundle { folder, path }
    }

    /// The executable, about to run without anything.
    fn start(&self) -> Premigrate {
        run(&self.path)
    }

    /// Where the payload begins: after the executable that it was made from.
    fn payload(&self) -> u64 {
        fs::metadata(env!("CARGO_BIN_EXE_premigrate")).expect("an executable").len()
    }

    fn length(&self) -> u64 {
        fs::metadata(&self.path).expect("a bundle").len()
    }

    fn is_damaged(&self, how: &str) {
        let run = self.start().arg("list").run().exits(65);
        assert_eq!(run.stdout, "");
        run.says(&["are damaged: ", how, "copy or download the file again"]);
    }
}

fn run(executable: &Path) -> Premigrate {
    let mut command = Command::new(executable);
    command.env_clear().current_dir(env!("CARGO_TARGET_TMPDIR"));
    Premigrate { command }
}

fn make(executable: Premigrate, migrations: &Path, output: &Path) -> Run {
    let with_folder = executable.arg("bundle").arg("--dir").arg(migrations);
    with_folder.arg("--output").arg(output).run()
}

/// The project's own.
fn migrations() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"))
}

/// The files in a folder that a bundle carries, with their contents.
fn carried(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fn walk(root: &Path, dir: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
        for entry in fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(root, &path, files);
            } else if path.extension().is_some_and(|it| it == "sql")
                || path.ends_with("_journal.json")
            {
                let inside = path.strip_prefix(root).expect("inside").to_owned();
                files.push((inside, fs::read(path).expect("a file")));
            }
        }
    }
    let mut files = Vec::new();
    walk(folder, folder, &mut files);
    files.sort();
    files
}

fn drizzle1() -> Folder {
    let folder = Folder::empty();
    folder.write("20260131093000_log/migration.sql", "create table log (what text)");
    folder.write("20260131093000_log/snapshot.json", "{}");
    folder.write("20260201093000_add/migration.sql", "insert into log values ('é')");
    folder
}

fn plain() -> Folder {
    let folder = Folder::empty();
    folder.write("1_log.sql", "create table log (what text)");
    folder.write("2_add.sql", "insert into log values ('é')");
    folder.write("notes.txt", "not a migration");
    folder
}

fn drizzle0() -> Folder {
    Folder::drizzle0(&[
        ("0000_log", "create table log (what text)"),
        ("0001_add", "insert into log values ('é')"),
    ])
}

#[test]
fn a_bundle_of_any_layout_applies_what_it_carries_and_gives_the_files_back() {
    for folder in [drizzle0(), drizzle1(), plain()] {
        let (database, bundle) = (Database::fresh(), Bundle::of(&folder.path));
        let up = || bundle.start().env("DATABASE_URL", &database.url).run().exits(0);
        let name = folder.path.file_name().expect("a name").to_str().expect("text");
        up().says(&[&format!("2 migrations in this executable, bundled from {name} (")]);
        assert_eq!(database.rows("select what from log"), ["é"]);
        up().says(&["up to date, 2 applied"]);

        let given_back = bundle.folder.path.join("out");
        let list = bundle.start().args(&["list", "--extract"]).arg(&given_back).run().exits(0);
        let of_folder = bare().args(&["list", "--dir"]).arg(&folder.path).run().exits(0);
        let rows = |run: &Run| run.stdout.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(rows(&list), rows(&of_folder));
        assert_eq!(carried(&given_back), carried(&folder.path));
        let all = output_of(Command::new("find").arg(&given_back).args(["-type", "f"])).stdout;
        assert_eq!(all.iter().filter(|&&byte| byte == b'\n').count(), carried(&folder.path).len());
    }
}

#[test]
fn the_files_are_extracted_only_into_a_new_or_empty_folder() {
    let bundle = Bundle::of(migrations());
    let out = Folder::empty();
    let extract = || bundle.start().args(&["list", "--extract"]).arg(&out.path).run();
    extract().exits(0);
    out.write("0000_teams_and_users.sql", "mine");
    let run = extract().exits(65).says(&["is not empty, and nothing is overwritten"]);
    assert_eq!(run.stdout, "");
    let kept = fs::read_to_string(out.path.join("0000_teams_and_users.sql"));
    assert_eq!(kept.expect("a file"), "mine");
}

#[test]
fn the_same_files_make_the_same_bundle_wherever_they_are() {
    let [one, other] = [Folder::empty(), Folder::empty()];
    let bundles = [&one, &other].map(|place| {
        for (file, content) in carried(migrations()) {
            place.write(&format!("drizzle/{}", file.display()), content);
        }
        let output = place.path.join("bundle");
        make(bare(), &place.path.join("drizzle"), &output).exits(0);
        // The same folder by another name.
        let again = place.path.join("again");
        let in_place = bare().current_dir(&place.path.join("drizzle"));
        make(in_place, Path::new("."), &again).exits(0);
        let [bundle, again] = [output, again].map(|path| fs::read(path).expect("a bundle"));
        assert!(bundle == again);
        let path = place.path.display().to_string();
        assert!(
            !contains(&bundle[bundle.len() - 10_000..], path.as_bytes()),
            "says where it was made"
        );
        bundle
    });
    assert!(bundles[0] == bundles[1]);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_bundle_of_a_bundle_carries_only_the_new_folder() {
    let (old, new) = (plain(), drizzle0());
    let bundle = Bundle::of(&old.path);
    let (again, direct) = (bundle.folder.path.join("again"), Bundle::of(&new.path));
    make(bundle.start(), &new.path, &again).exits(0);
    assert!(fs::read(&again).expect("a bundle") == fs::read(&direct.path).expect("a bundle"));

    // Named as the base, and in its own place.
    let based = bundle.folder.path.join("based");
    make(bare().arg("--base").arg(&bundle.path), &new.path, &based).exits(0);
    make(bundle.start(), &new.path, &bundle.path).exits(0);
    for made in [&based, &bundle.path] {
        assert!(fs::read(made).expect("a bundle") == fs::read(&direct.path).expect("a bundle"));
    }
}

#[test]
fn a_bundle_replaces_what_was_embedded_and_a_folder_replaces_the_bundle() {
    let (folder, other) = (plain(), drizzle1());
    let bundle = Bundle::of(&folder.path);
    let list = |args: &[&str]| bundle.start().arg("list").args(args).run().exits(0).stdout;
    assert!(list(&[]).contains("1_log") && !list(&[]).contains("teams_and_users"));
    let dir = other.path.to_str().expect("text");
    assert!(list(&["--dir", dir]).contains("20260131093000_log"));
    let by_variable = bundle.start().arg("list").env("PREMIGRATE_DIR", dir).run().exits(0);
    assert_eq!(by_variable.stdout, list(&["--dir", dir]));
}

#[test]
fn the_version_says_what_is_carried() {
    let folder = plain();
    let bundle = Bundle::of(&folder.path);
    let sums = "find . -name '*.sql' -printf '%P\\n' | sort | xargs sha256sum | sha256sum";
    let sums = output_of(Command::new("sh").args(["-c", sums]).current_dir(&folder.path)).stdout;
    let digest = String::from_utf8(sums).expect("text")[..64].to_owned();
    let name = folder.path.file_name().expect("a name").to_str().expect("text").to_owned();
    let said = bundle.start().arg("--version").run().exits(0).stdout;
    let last = said.lines().last().expect("a line").to_owned();
    assert_eq!(last, format!("2 migrations (plain files), bundled from {name}, SHA-256 {digest}"));

    // What `bundle` says is the same.
    let json = bundle.folder.path.join("json");
    let made = make(bare().args(&["--format", "json"]), &folder.path, &json).exits(0);
    let made: serde_json::Value = serde_json::from_str(&made.stdout).expect("JSON");
    assert_eq!((made["digest"].as_str(), made["from"].as_str()), (Some(&*digest), Some(&*name)));
    assert_eq!(made["bytes"], fs::metadata(&json).expect("a bundle").len());
}

// What has damaged a bundle.

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect("a bundle")
}

/// Inverts some bits of a byte, and closes the file: what is open for writing cannot run.
fn flip(path: &Path, at: u64) {
    let (mut file, mut byte) = (open(path), [0]);
    file.seek(SeekFrom::Start(at)).expect("a place");
    file.read_exact(&mut byte).expect("a byte");
    file.seek(SeekFrom::Start(at)).expect("a place");
    file.write_all(&[byte[0] ^ 0x21]).expect("a byte");
}

#[test]
fn a_bundle_with_any_byte_changed_is_refused() {
    let folder = plain();
    let mut random = Random(7);
    for number in 3..9 {
        let rows =
            (0..2000).map(|_| format!("insert into log values ('{}');\n", random.below(1 << 30)));
        folder.write(&format!("{number}_rows.sql"), rows.collect::<String>());
    }
    let bundle = Bundle::of(&folder.path);
    let (start, end) = (bundle.payload(), bundle.length());
    assert!(end - start > 60_000, "{start} {end}");
    let last = (1..=4).map(|back| end - back);
    let mut count = 0;
    for at in (start..end).step_by(1000).chain(last) {
        flip(&bundle.path, at);
        bundle.is_damaged("they were changed");
        flip(&bundle.path, at);
        count += 1;
    }
    assert!(count > 60, "{count}");
    bundle.start().arg("list").run().exits(0);

    // It says so wherever the migrations are needed, and a folder is not touched by that.
    flip(&bundle.path, start);
    let says = |args: &[&str]| bundle.start().args(args).run().exits(65).says(&["are damaged"]);
    for args in [&["check"][..], &["status"], &["up", "--", "echo", "started"], &["--dry-run"]] {
        assert_eq!(says(args).stdout, "", "{args:?}");
    }
    assert!(says(&["--version"]).stdout.starts_with("premigrate "));
    let error = says(&["list", "--format", "json"]).events().remove(0);
    assert_eq!(
        (error["error"].as_str(), error["exit_code"].as_i64()),
        (Some("damaged_bundle"), Some(65))
    );
    bundle.start().args(&["list", "--dir"]).arg(&folder.path).run().exits(0);
}

#[test]
fn a_bundle_that_was_cut_is_refused() {
    let bundle = Bundle::of(migrations());
    let (start, end) = (bundle.payload(), bundle.length());
    let lengths = [end - 1, end - 8, end - 4096, end - 5000, (start + end) / 2, start + 1, start];
    for length in lengths {
        open(&bundle.path).set_len(length).expect("a length");
        let how = if length > end - 4096 { "are damaged" } else { "the file ends before they do" };
        bundle.is_damaged(how);
    }
    // It carries nothing that could be replaced.
    make(bare().arg("--base").arg(&bundle.path), migrations(), &bundle.folder.path.join("again"))
        .exits(65)
        .says(&["was changed since it was built"]);
}

#[test]
fn a_bundle_that_binutils_have_rewritten_is_refused() {
    for (tool, args) in
        [("strip", &[][..]), ("objcopy", &["--strip-debug"]), ("objcopy", &[]), ("strip", &["-g"])]
    {
        let bundle = Bundle::of(migrations());
        let output = output_of(Command::new(tool).args(args).arg(&bundle.path));
        assert!(output.status.success(), "{tool}: {output:?}");
        bundle.is_damaged("they were removed from it");
    }
    // What was stripped before is no worse a base.
    let folder = Folder::empty();
    let (base, output) = (folder.path.join("stripped"), folder.path.join("bundle"));
    let stripped =
        Command::new("strip").arg("-o").arg(&base).arg(env!("CARGO_BIN_EXE_premigrate")).status();
    assert!(stripped.expect("strip").success());
    make(bare().arg("--base").arg(&base), migrations(), &output).exits(0);
    run(&output).arg("list").run().exits(0);
}

#[test]
fn an_executable_that_may_not_be_read_carries_its_migrations_all_the_same() {
    let bundle = Bundle::of(migrations());
    fs::set_permissions(&bundle.path, Permissions::from_mode(0o111)).expect("a mode");
    let start = || {
        let mut start = bundle.start().current_dir(Path::new("/"));
        // Root may read everything.
        if fs::metadata(&bundle.path).expect("a bundle").uid() == 0 {
            start.command.uid(65534).gid(65534);
        }
        start
    };
    let list = start().arg("list").run().exits(0);
    assert!(list.stdout.starts_with("27 migrations in this executable, bundled from migrations"));
    let output = bundle.folder.path.join("again");
    make(start(), migrations(), &output)
        .exits(65)
        .says(&["could not read this executable", "--base"]);
}

// What no bundle is made of.

#[test]
fn migrations_with_errors_are_listed_and_carried_since_they_may_be_applied_already() {
    let folder = Folder::drizzle0(&[("0000_a", "select 1"), ("0001_b", "select 1;\nrollback")]);
    let database = Database::fresh();
    premigrate(&database, &folder).arg("baseline").run().exits(0);
    let output = folder.path.join("bundle");
    let made = make(bare(), &folder.path, &output).exits(0);
    let (_, errors) = made.stdout.split_once('\n').unwrap();
    expect![[r#"
        Migrations with errors do not run where they are still pending:

          - 0001_b.sql:2:1: error: the file contains `rollback`, which would leave the migration's changes uncommitted; remove it [rolls-back]
    "#]]
    .assert_eq(errors);
    let json = make(bare().args(&["--format", "json"]), &folder.path, &output).exits(0);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json.stdout).unwrap()["errors"], 1);
    let up = |database: &Database| run(&output).env("DATABASE_URL", &database.url).run();
    up(&database).exits(0).says(&["up to date, 2 applied"]);
    up(&Database::fresh()).exits(65).says(&["0001_b.sql:2:1 contains `rollback`"]);
}

#[test]
fn of_a_folder_without_an_order_no_bundle_is_made() {
    let folder = Folder::drizzle0(&[("0000_a", "select 1"), ("0001_b", "select 1")]);
    std::fs::remove_file(folder.path.join("0001_b.sql")).unwrap();
    let place = Folder::empty();
    let output = place.path.join("bundle");
    place.write("bundle", "mine");
    let run = make(bare(), &folder.path, &output).exits(65);
    run.says(&["have errors; no bundle was made:", "0001_b.sql: error: the file is missing"]);
    let missing = place.path.join("missing");
    make(bare(), &missing, &output).exits(65).says(&["could not read", "missing"]);
    make(bare(), &Folder::empty().path, &output).exits(65).says(&["no migrations found"]);
    assert_eq!(fs::read_to_string(&output).expect("a file"), "mine");
    assert_eq!(fs::read_dir(&place.path).expect("a folder").count(), 1);
}

#[test]
fn a_bundle_takes_the_place_of_a_file_and_of_nothing_else() {
    let place = Folder::empty();
    let target = place.path.join("target");
    place.write("target", "old");
    let link = place.path.join("link");
    symlink("target", &link).expect("a link");
    make(bare(), migrations(), &link).exits(0);
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
    assert_eq!(fs::metadata(&target).expect("a file").permissions().mode() & 0o7777, 0o755);
    run(&target).arg("list").run().exits(0);

    for not_a_file in ["/dev/null", "/", "", "."] {
        let run = make(bare().current_dir(&place.path), migrations(), Path::new(not_a_file));
        let code = if not_a_file.is_empty() { 78 } else { 65 };
        run.exits(code).says(&["file"]);
    }
    make(bare(), migrations(), &place.path).exits(65).says(&["is not a file"]);
    let nowhere = place.path.join("no/such/bundle");
    make(bare(), migrations(), &nowhere).exits(65).says(&["could not write", "No such file"]);
    assert_eq!(fs::read_dir(&place.path).expect("a folder").count(), 2);
}

#[test]
fn a_base_that_cannot_carry_migrations_is_named() {
    let place = Folder::empty();
    place.write("text", "#!/bin/sh\n");
    let text = place.path.join("text").display().to_string();
    let missing = place.path.join("missing").display().to_string();
    for (base, words) in [
        (text.as_str(), "is not a whole executable for 64-bit Linux"),
        ("/bin/true", "is not a premigrate that can carry migrations"),
        (&missing, "could not read"),
    ] {
        let output = place.path.join("bundle");
        make(bare().args(&["--base", base]), migrations(), &output).exits(65).says(&[base, words]);
        assert!(!output.exists());
    }
    let usage = |args: &[&str]| bare().arg("bundle").args(args).run().exits(64);
    usage(&["--output", "x"]).says(&["`bundle` needs a folder: --dir DIR"]);
    usage(&["--dir", "x"]).says(&["`bundle` needs a name for the file to make: --output FILE"]);
}
