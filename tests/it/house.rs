//! Which module at the top of the source imports which: the table at the top of `src/lib.rs` says it, and the
//! code is held to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a name imports: other modules, each with where it does so.
type Imports = BTreeMap<String, BTreeMap<String, String>>;

#[test]
fn each_module_imports_only_those_below_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let crate_root = read(&source.join("lib.rs"));
    let table = table(&crate_root).expect("src/lib.rs has no table of the modules");
    assert_eq!(circles(&table), [""; 0]);
    let top: BTreeSet<String> = modules(&crate_root).into_iter().collect();
    let listed: BTreeSet<String> = table.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(listed, top, "the table of src/lib.rs has other modules than there are");

    let mut imports = Imports::new();
    for path in files(&source) {
        let relative = path.strip_prefix(&source).unwrap();
        let module = module_of(relative);
        if top.contains(&module[0]) && !is_for_tests(relative) {
            let file = format!("src/{}", relative.display());
            collect(&mut imports, &module, &file, &read(&path), &top);
        }
    }
    assert_eq!(disagreements(&table, &imports), [""; 0]);
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// `a/b.rs` and `a/b/mod.rs` are the module `a::b`.
fn module_of(file: &Path) -> Vec<String> {
    let parts = file.with_extension("");
    let parts = parts.iter().map(|part| part.to_str().unwrap().to_owned());
    parts.filter(|part| part != "mod").collect()
}

fn is_for_tests(file: &Path) -> bool {
    let is_name = |name: &String| ["tests", "fuzz", "properties"].contains(&name.as_str());
    module_of(file).iter().any(is_name)
}

/// The modules in order, each with those that it imports; `None` if there is no table.
fn table(crate_root: &str) -> Option<Vec<(String, Vec<String>)>> {
    let lines = crate_root.lines().map_while(|line| line.strip_prefix("//!"));
    let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = words.skip_while(|words| words != &["module", "imports"]).skip(1);
    let rows: Vec<_> = rows
        .take_while(|words| !words.first().is_some_and(|word| word.starts_with("```")))
        .filter(|words| !words.is_empty())
        .map(|words| {
            let behind = words[1..].iter().map(|word| word.trim_matches(',').to_owned());
            let imports = behind.filter(|word| word != "imports" && word != "nothing");
            (words[0].to_owned(), imports.collect())
        })
        .collect();
    (!rows.is_empty()).then_some(rows)
}

/// What is wrong with the table by itself: each name may list only those further down.
fn circles(table: &[(String, Vec<String>)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (place, (name, imports)) in table.iter().enumerate() {
        for import in imports {
            if !table[place + 1..].iter().any(|(below, _)| below == import) {
                wrong.push(format!("{name} lists {import}, which does not stand below it"));
            }
        }
    }
    wrong
}

/// What the table says and the code does not do, and the other way round.
fn disagreements(table: &[(String, Vec<String>)], imports: &Imports) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, listed) in table {
        let none = BTreeMap::new();
        let found = imports.get(name).unwrap_or(&none);
        for (import, place) in found.iter().filter(|(import, _)| !listed.contains(import)) {
            wrong.push(format!("{place}: {name} imports {import}, which the table does not list"));
        }
        for import in listed.iter().filter(|import| !found.contains_key(*import)) {
            wrong.push(format!("{name} does not import {import}, though the table lists it"));
        }
    }
    wrong
}

/// The modules that are declared at the top of a file.
fn modules(text: &str) -> Vec<String> {
    let declared = text.lines().filter_map(|line| {
        line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?.strip_suffix(';')
    });
    declared.map(str::to_owned).collect()
}

/// Adds what a module's text imports from modules other than its own. What is of none, an item of the
/// crate itself, is imported from `lib`, which stands above all of them.
fn collect(
    imports: &mut Imports,
    module: &[String],
    file: &str,
    text: &str,
    top: &BTreeSet<String>,
) {
    let code = without_tests(&without_comments_and_literals(text));
    let tokens = tokens(&code);
    let mut note = |name: &str, line: usize| {
        let name = if top.contains(name) { name } else { "lib" };
        if name != module[0] {
            let place = format!("{file}:{line}");
            let found = imports.entry(module[0].clone()).or_default();
            found.entry(name.to_owned()).or_insert(place);
        }
    };
    for (at, &(token, line)) in tokens.iter().enumerate() {
        let is_continued = at > 0 && tokens[at - 1].0 == "::";
        if is_continued || !(token == "crate" || token == "super") {
            continue;
        }
        let mut scope = if token == "crate" { Vec::new() } else { parent(module) };
        let mut next = at + 1;
        while tokens.get(next..next + 2).is_some_and(|it| it[0].0 == "::" && it[1].0 == "super") {
            scope = parent(&scope);
            next += 2;
        }
        if tokens.get(next).is_none_or(|it| it.0 != "::") {
            // `pub(crate)`, for example.
            continue;
        }
        match scope.first() {
            Some(name) => note(name, line),
            None if tokens[next + 1].0 == "{" => {
                for (name, line) in heads_of_group(&tokens[next + 2..]) {
                    note(name, line);
                }
            }
            None => note(tokens[next + 1].0, tokens[next + 1].1),
        }
    }
}

fn parent(module: &[String]) -> Vec<String> {
    module.split_last().map(|(_, parent)| parent.to_vec()).unwrap_or_default()
}

/// The first name of each path in `{a::b, c::{d, e}}`, behind the brace that opens it.
fn heads_of_group<'a>(tokens: &[(&'a str, usize)]) -> Vec<(&'a str, usize)> {
    let (mut depth, mut heads, mut is_head) = (1, Vec::new(), true);
    for &(token, line) in tokens {
        match token {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => is_head = true,
            _ if is_head => {
                heads.push((token, line));
                is_head = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

/// Words, `::`, and every other character by itself, each with its line.
fn tokens(code: &str) -> Vec<(&str, usize)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut tokens, mut rest, mut line) = (Vec::new(), code, 1);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        if first == '\n' {
            line += 1;
        } else if !first.is_whitespace() {
            tokens.push((token, line));
        }
        rest = behind;
    }
    tokens
}

/// The text with spaces in place of comments and of the contents of strings and characters.
fn without_comments_and_literals(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = length_of_hidden(rest, code.chars().next_back());
        let (hidden, behind) = rest.split_at(length.unwrap_or(c.len_utf8()));
        match length {
            Some(_) => code.extend(hidden.chars().map(|c| if c == '\n' { c } else { ' ' })),
            None => code.push(c),
        }
        rest = behind;
    }
    code
}

/// How long the comment or literal is that begins here, if one does.
fn length_of_hidden(text: &str, before: Option<char>) -> Option<usize> {
    let until = |text: &str, end: &str| text.find(end).map_or(text.len(), |at| at + end.len());
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(until(text, "*/"));
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if let Some(raw) = text.strip_prefix('r').filter(|_| !in_word || before == Some('b')) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return Some(hashes + 2 + until(&raw[hashes + 1..], &end));
        }
    }
    let quote = text.chars().next().filter(|&c| c == '"' || c == '\'')?;
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote {
            return Some(at + 1);
        } else if quote == '\'' && at > 1 && !text[1..].starts_with('\\') {
            // A lifetime.
            return None;
        }
    }
    None
}

/// The code with spaces in place of what is compiled for tests only.
fn without_tests(code: &str) -> String {
    let (mut kept, mut rest) = (String::new(), code);
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, item) = rest.split_at(at);
        let length = length_of_item(item);
        kept.push_str(before);
        kept.extend(item[..length].chars().map(|c| if c == '\n' { c } else { ' ' }));
        rest = &item[length..];
    }
    kept + rest
}

/// Up to its semicolon, or to the end of its block.
fn length_of_item(item: &str) -> usize {
    let (mut depth, mut is_use) = (0, false);
    for (at, c) in item.char_indices() {
        is_use |= depth == 0 && item[at..].starts_with("use ");
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && (c == ';' || c == '}' && !is_use) {
            return at + 1;
        }
    }
    item.len()
}

/// What a crate of three modules, of which one has two files, imports according to its text.
fn imports_of(file: &str, text: &str) -> Vec<String> {
    let top = ["top", "middle", "bottom"].map(str::to_owned).into();
    let mut imports = Imports::new();
    collect(&mut imports, &module_of(Path::new(file)), file, text, &top);
    let found = imports.into_values().flatten();
    found.map(|(name, place)| format!("{place} {name}")).collect()
}

#[test]
fn every_form_of_an_import_is_seen_and_nothing_else() {
    for (file, text, expected) in [
        (
            "top.rs",
            "use crate::bottom::a;\npub use crate::middle;",
            &["top.rs:1 bottom", "top.rs:2 middle"][..],
        ),
        (
            "top.rs",
            "use crate::{\n    bottom::{a, b},\n    middle,\n};",
            &["top.rs:2 bottom", "top.rs:3 middle"],
        ),
        ("top.rs", "use super::middle;", &["top.rs:1 middle"]),
        ("top/a.rs", "use super::middle;\nuse super::super::bottom;", &["top/a.rs:2 bottom"]),
        ("top/a/mod.rs", "use super::super::bottom;", &["top/a/mod.rs:1 bottom"]),
        (
            "middle.rs",
            "fn f() -> crate::bottom::A { crate::run() }",
            &["middle.rs:1 bottom", "middle.rs:1 lib"],
        ),
        ("middle.rs", "use crate::middle::a; pub(crate) fn f() {} use self::b; use std::io;", &[]),
        (
            "middle.rs",
            "// crate::top\n/* crate::top */ const A: &str = \"crate::top\"; //! crate::top",
            &[],
        ),
        (
            "middle.rs",
            "const A: &str = r#\"\" crate::top\"#; fn f<'a>(b: &'a [u8; 2]) { '\\'' }\nuse crate::top;",
            &["middle.rs:2 top"],
        ),
        (
            "middle.rs",
            "const A: [char; 2] = ['\"', '\\\\'];\nuse crate::top;",
            &["middle.rs:2 top"],
        ),
        (
            "bottom.rs",
            "#[cfg(test)]\nuse crate::{top};\n#[cfg(test)]\nmod tests {\n    use crate::top;\n}\nuse crate::middle;",
            &["bottom.rs:7 middle"],
        ),
    ] {
        assert_eq!(imports_of(file, text), expected, "{text}");
    }
}

#[test]
fn the_table_is_read_and_compared_with_the_code() {
    let root = "//! A crate.\n//!\n//! ```text\n//! module     imports\n\
        //! top        imports middle, bottom\n//! middle     imports bottom\n\
        //! bottom     imports nothing\n//! ```\n\npub mod top;\nmod bottom;\n";
    let table = table(root).unwrap();
    let row = |name: &str, imports: &[&str]| {
        (name.to_owned(), imports.iter().map(|&it| it.to_owned()).collect::<Vec<_>>())
    };
    let expected =
        [row("top", &["middle", "bottom"]), row("middle", &["bottom"]), row("bottom", &[])];
    assert_eq!(table, expected);
    assert_eq!(self::table("//! A crate.\n"), None);
    assert_eq!(modules(root), ["top", "bottom"]);
    assert_eq!(circles(&table), [""; 0]);
    let upwards = [row("top", &["bottom"]), row("bottom", &["top", "bottom"])];
    assert_eq!(
        circles(&upwards),
        [
            "bottom lists top, which does not stand below it",
            "bottom lists bottom, which does not stand below it"
        ]
    );
    let imports = |found: &[(&str, &str)]| {
        let mut imports = Imports::new();
        for (name, import) in found {
            let of = imports.entry((*name).to_owned()).or_default();
            of.insert((*import).to_owned(), format!("src/{name}.rs:1"));
        }
        imports
    };
    let all = [("top", "middle"), ("top", "bottom"), ("middle", "bottom")];
    assert_eq!(disagreements(&table, &imports(&all)), [""; 0]);
    assert_eq!(
        disagreements(&table, &imports(&[all[0], all[2], ("bottom", "top")])),
        [
            "top does not import bottom, though the table lists it",
            "src/bottom.rs:1: bottom imports top, which the table does not list",
        ]
    );
}
