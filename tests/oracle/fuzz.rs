//! Mutated SQL, from a kept corpus and from a seed that is printed: never a panic, the pieces put
//! together are always the text, and what PostgreSQL accepts is read as PostgreSQL reads it.
//!
//! Always from the same seed, so that a build does not fail for another's reason. To look for more:
//! `FUZZ_SEED=clock FUZZ_TEXTS=2000000`. What is found goes to corpus/ as a file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::agreement::{compare, holds_together};

/// What a reader of SQL may stumble over.
const FRAGMENTS: [&str; 64] = [
    ";",
    "'",
    "''",
    "\"",
    "\"\"",
    "\\",
    "\\'",
    "$$",
    "$a$",
    "$1",
    "$",
    "(",
    ")",
    "[",
    "]",
    "--",
    "-- c\n",
    "/*",
    "*/",
    "/* /* */ */",
    "\n",
    "\r\n",
    " ",
    "\t",
    "\u{feff}",
    "\u{a0}",
    "ä",
    "e'",
    "E'\\''",
    "n'x'",
    "b'1'",
    "x'f'",
    "u&'\\0041'",
    "U&\"d\" uescape '!'",
    "begin",
    "begin atomic",
    "end",
    "case when 1 then 2 end",
    "commit",
    "rollback",
    "create function f() returns int",
    "create rule r as on insert to t do (select 1; select 2)",
    "language sql",
    "return 1",
    "select 1",
    "as $$ select 1; $$",
    "copy t from stdin",
    "\\.",
    "--> statement-breakpoint",
    "set",
    "local",
    "index concurrently",
    "vacuum",
    "prepare transaction 'x'",
    "1e",
    "1.5",
    "0x1f",
    "::",
    ":=",
    "@-",
    "<>",
    "!=-",
    "+-",
    "-- premigrate: no-transaction\n",
];

/// xorshift: the same numbers from the same seed, on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    fn of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }

    /// A place between two characters.
    fn place(&mut self, text: &str) -> usize {
        text.floor_char_boundary(self.below(text.len() + 1))
    }
}

fn kept() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).expect("text")).collect()
}

fn mutated(corpus: &[&str], random: &mut Random) -> String {
    let mut text = random.of(corpus).to_owned();
    for _ in 0..=random.below(5) {
        let (a, b) = (random.place(&text), random.place(&text));
        let (from, to) = (a.min(b), a.max(b));
        let short = text.floor_char_boundary((from + random.below(8)).min(text.len()));
        match random.below(7) {
            0 | 1 => text.insert_str(from, random.of(&FRAGMENTS)),
            2 => text.replace_range(from..short, random.of(&FRAGMENTS)),
            3 => text.replace_range(from..short, ""),
            4 => {
                let other = random.of(corpus);
                let (c, d) = (random.place(other), random.place(other));
                text.insert_str(from, &other[c.min(d)..c.max(d)]);
            }
            5 => text.truncate(to),
            _ => {
                let part = text[from..to].to_owned();
                text.insert_str(to, &part);
            }
        }
        text.truncate(text.floor_char_boundary(4096));
    }
    text
}

/// A marker is a comment to PostgreSQL, and our cut; a byte order mark is no SQL, and passed over.
fn is_read_alike(text: &str) -> bool {
    !text.contains("--> statement-breakpoint") && !text.starts_with('\u{feff}')
}

fn examine(text: &str) -> Result<usize, String> {
    let examined = catch_unwind(AssertUnwindSafe(|| {
        holds_together(text)?;
        if is_read_alike(text) { compare(text) } else { Ok(None) }
    }));
    examined.unwrap_or_else(|_| Err("it panics".to_owned())).map(Option::unwrap_or_default)
}

#[test]
fn the_kept_corpus_is_read_as_the_parser_reads_it() {
    let corpus = kept();
    for text in &corpus {
        examine(text).unwrap_or_else(|fault| panic!("{fault}\n---\n{text}\n---"));
    }
    assert!(corpus.len() >= 20, "{}", corpus.len());
}

#[test]
fn no_mutated_text_panics_loses_a_byte_or_is_read_otherwise() {
    let given = |name: &str| std::env::var(name).ok();
    let number = |it: String| it.parse::<u64>().expect("a number");
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seed = match given("FUZZ_SEED") {
        Some(seed) if seed == "clock" => clock(),
        seed => seed.map_or(20_261_125, number),
    };
    let limit = given("FUZZ_TEXTS").map_or(20_000, number);
    println!("FUZZ_SEED={seed}");
    let corpus = kept();
    let corpus: Vec<&str> = corpus.iter().map(String::as_str).collect();
    let mut random = Random(seed | 1);
    let mut statements = 0;
    for place in 0..limit {
        let text = mutated(&corpus, &mut random);
        match examine(&text) {
            Ok(compared) => statements += compared,
            Err(fault) => panic!("FUZZ_SEED={seed}, text {place}: {fault}\n---\n{text}\n---"),
        }
    }
    println!("{limit} texts, {statements} statements that PostgreSQL accepts, seed {seed}");
    assert!(statements > 1000, "{statements}");
}
