//! Mutates SQL from the corpus, with a seed that is printed. Nothing panics, the joined pieces are
//! always the text, and what PostgreSQL accepts is read as PostgreSQL reads it.
//!
//! The seed is fixed, so that a build does not fail by chance. To search further:
//! `FUZZ_SEED=clock FUZZ_TEXTS=2000000`. Keep what it finds as a file in corpus/.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::agreement::{check_consistency, compare};

/// Fragments that are hard for a lexer.
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

    fn pick<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }

    /// An offset between two characters.
    fn offset(&mut self, text: &str) -> usize {
        text.floor_char_boundary(self.below(text.len() + 1))
    }
}

fn corpus() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).expect("text")).collect()
}

fn mutated(corpus: &[&str], random: &mut Random) -> String {
    let mut text = random.pick(corpus).to_owned();
    for _ in 0..=random.below(5) {
        let (a, b) = (random.offset(&text), random.offset(&text));
        let (from, to) = (a.min(b), a.max(b));
        let short = text.floor_char_boundary((from + random.below(8)).min(text.len()));
        match random.below(7) {
            0 | 1 => text.insert_str(from, random.pick(&FRAGMENTS)),
            2 => text.replace_range(from..short, random.pick(&FRAGMENTS)),
            3 => text.replace_range(from..short, ""),
            4 => {
                let other = random.pick(corpus);
                let (c, d) = (random.offset(other), random.offset(other));
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

/// To PostgreSQL, a marker is a comment, and a byte order mark is not SQL.
fn is_comparable(text: &str) -> bool {
    !text.contains("--> statement-breakpoint") && !text.starts_with('\u{feff}')
}

fn examine(text: &str) -> Result<usize, String> {
    let examined = catch_unwind(AssertUnwindSafe(|| {
        check_consistency(text)?;
        if is_comparable(text) { compare(text) } else { Ok(None) }
    }));
    examined.unwrap_or_else(|_| Err("a panic".to_owned())).map(Option::unwrap_or_default)
}

#[test]
fn the_corpus_is_read_as_the_parser_reads_it() {
    let corpus = corpus();
    for text in &corpus {
        examine(text).unwrap_or_else(|difference| panic!("{difference}\n---\n{text}\n---"));
    }
    assert!(corpus.len() >= 20, "{}", corpus.len());
}

#[test]
fn mutated_text_never_panics_loses_a_byte_or_is_read_differently() {
    let given = |name: &str| std::env::var(name).ok();
    let number = |text: String| text.parse::<u64>().expect("a number");
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seed = match given("FUZZ_SEED") {
        Some(seed) if seed == "clock" => clock(),
        seed => seed.map_or(20_261_125, number),
    };
    let limit = given("FUZZ_TEXTS").map_or(20_000, number);
    println!("FUZZ_SEED={seed}");
    let corpus = corpus();
    let corpus: Vec<&str> = corpus.iter().map(String::as_str).collect();
    let mut random = Random(seed | 1);
    let mut statements = 0;
    for index in 0..limit {
        let text = mutated(&corpus, &mut random);
        match examine(&text) {
            Ok(compared) => statements += compared,
            Err(difference) => {
                panic!("FUZZ_SEED={seed}, text {index}: {difference}\n---\n{text}\n---")
            }
        }
    }
    println!("{limit} texts, {statements} statements that PostgreSQL accepts, seed {seed}");
    assert!(statements > 1000, "{statements}");
}
