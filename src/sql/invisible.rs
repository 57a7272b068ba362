//! Characters that cannot be seen, in words where PostgreSQL takes them for letters.

use std::fmt;

use super::lexer::{Lexer, TokenKind};

/// Those that are not control characters, with their names in Unicode.
#[rustfmt::skip]
const INVISIBLE: [(char, &str); 55] = [
    ('\u{a0}', "NO-BREAK SPACE"), ('\u{ad}', "SOFT HYPHEN"),
    ('\u{34f}', "COMBINING GRAPHEME JOINER"), ('\u{61c}', "ARABIC LETTER MARK"),
    ('\u{115f}', "HANGUL CHOSEONG FILLER"), ('\u{1160}', "HANGUL JUNGSEONG FILLER"),
    ('\u{1680}', "OGHAM SPACE MARK"), ('\u{17b4}', "KHMER VOWEL INHERENT AQ"),
    ('\u{17b5}', "KHMER VOWEL INHERENT AA"), ('\u{180e}', "MONGOLIAN VOWEL SEPARATOR"),
    ('\u{2000}', "EN QUAD"), ('\u{2001}', "EM QUAD"), ('\u{2002}', "EN SPACE"),
    ('\u{2003}', "EM SPACE"), ('\u{2004}', "THREE-PER-EM SPACE"), ('\u{2005}', "FOUR-PER-EM SPACE"),
    ('\u{2006}', "SIX-PER-EM SPACE"), ('\u{2007}', "FIGURE SPACE"), ('\u{2008}', "PUNCTUATION SPACE"),
    ('\u{2009}', "THIN SPACE"), ('\u{200a}', "HAIR SPACE"), ('\u{200b}', "ZERO WIDTH SPACE"),
    ('\u{200c}', "ZERO WIDTH NON-JOINER"), ('\u{200d}', "ZERO WIDTH JOINER"),
    ('\u{200e}', "LEFT-TO-RIGHT MARK"), ('\u{200f}', "RIGHT-TO-LEFT MARK"),
    ('\u{2028}', "LINE SEPARATOR"), ('\u{2029}', "PARAGRAPH SEPARATOR"),
    ('\u{202a}', "LEFT-TO-RIGHT EMBEDDING"), ('\u{202b}', "RIGHT-TO-LEFT EMBEDDING"),
    ('\u{202c}', "POP DIRECTIONAL FORMATTING"), ('\u{202d}', "LEFT-TO-RIGHT OVERRIDE"),
    ('\u{202e}', "RIGHT-TO-LEFT OVERRIDE"), ('\u{202f}', "NARROW NO-BREAK SPACE"),
    ('\u{205f}', "MEDIUM MATHEMATICAL SPACE"), ('\u{2060}', "WORD JOINER"),
    ('\u{2061}', "FUNCTION APPLICATION"), ('\u{2062}', "INVISIBLE TIMES"),
    ('\u{2063}', "INVISIBLE SEPARATOR"), ('\u{2064}', "INVISIBLE PLUS"),
    ('\u{2066}', "LEFT-TO-RIGHT ISOLATE"), ('\u{2067}', "RIGHT-TO-LEFT ISOLATE"),
    ('\u{2068}', "FIRST STRONG ISOLATE"), ('\u{2069}', "POP DIRECTIONAL ISOLATE"),
    ('\u{206a}', "INHIBIT SYMMETRIC SWAPPING"), ('\u{206b}', "ACTIVATE SYMMETRIC SWAPPING"),
    ('\u{206c}', "INHIBIT ARABIC FORM SHAPING"), ('\u{206d}', "ACTIVATE ARABIC FORM SHAPING"),
    ('\u{206e}', "NATIONAL DIGIT SHAPES"), ('\u{206f}', "NOMINAL DIGIT SHAPES"),
    ('\u{2800}', "BRAILLE PATTERN BLANK"), ('\u{3000}', "IDEOGRAPHIC SPACE"),
    ('\u{3164}', "HANGUL FILLER"), ('\u{feff}', "ZERO WIDTH NO-BREAK SPACE"),
    ('\u{ffa0}', "HALFWIDTH HANGUL FILLER"),
];

/// Shown as `U+200B (ZERO WIDTH SPACE)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Invisible(char);

impl Invisible {
    pub fn of(character: char) -> Option<Invisible> {
        // A NUL has an error of its own; the others are white space to PostgreSQL.
        let is_known = matches!(character, '\0' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
        let is_invisible = !is_known && (character.is_control() || name(character).is_some());
        is_invisible.then_some(Invisible(character))
    }

    pub fn character(self) -> char {
        self.0
    }
}

impl fmt::Display for Invisible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = name(self.0).unwrap_or("a control character");
        write!(f, "U+{:04X} ({name})", u32::from(self.0))
    }
}

fn name(character: char) -> Option<&'static str> {
    let at = INVISIBLE.binary_search_by_key(&character, |(character, _)| *character).ok()?;
    INVISIBLE.get(at).map(|(_, name)| *name)
}

/// Where an invisible character is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvisiblePlace {
    pub invisible: Invisible,
    /// The byte offset in the statement.
    pub offset: usize,
    /// The byte offset of the word that it is in. Alone, it is a word too.
    pub word: usize,
    /// Whether the server accepts nothing that has it there: no command has such a letter, and a
    /// control character is none.
    pub is_syntax_error: bool,
}

/// The invisible characters of a statement that are not in quotes or comments.
pub fn in_words(statement: &str) -> impl Iterator<Item = InvisiblePlace> {
    let is_seen = |byte: u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let may_have = !statement.bytes().all(is_seen);
    let tokens = may_have.then(|| Lexer::new(statement, 0)).into_iter().flatten();
    let words = tokens.filter(|token| matches!(token.kind, TokenKind::Word | TokenKind::Symbol));
    words.flat_map(|token| {
        token.text.char_indices().filter_map(move |(at, character)| {
            let invisible = Invisible::of(character)?;
            if joins_letters(token.text, at, character) {
                return None;
            }
            let is_syntax_error = token.start == 0 || token.kind == TokenKind::Symbol;
            let (offset, word) = (token.start + at, token.start);
            Some(InvisiblePlace { invisible, offset, word, is_syntax_error })
        })
    })
}

/// Persian and the languages of India need joiners between letters.
fn joins_letters(word: &str, at: usize, character: char) -> bool {
    let is_letter = |c: char| !c.is_ascii() && Invisible::of(c).is_none();
    let before = word.get(..at).and_then(|before| before.chars().next_back());
    let after = word.get(at + character.len_utf8()..).and_then(|after| after.chars().next());
    matches!(character, '\u{200c}' | '\u{200d}')
        && before.is_some_and(is_letter)
        && after.is_some_and(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(statement: &str) -> Vec<(usize, usize, String)> {
        let each = in_words(statement).map(|InvisiblePlace { invisible, offset, word, .. }| {
            (word, offset, invisible.to_string())
        });
        each.collect()
    }

    #[test]
    fn the_names_are_in_order() {
        assert!(INVISIBLE.is_sorted_by_key(|(character, _)| *character));
        assert!(INVISIBLE.iter().all(|(character, _)| Invisible::of(*character).is_some()));
    }

    #[test]
    fn an_invisible_character_is_a_part_of_a_word_or_one_of_its_own() {
        let mark = "U+FEFF (ZERO WIDTH NO-BREAK SPACE)".to_owned();
        assert_eq!(places("\u{feff}create table a ()"), [(0, 0, mark)]);
        let space = "U+00A0 (NO-BREAK SPACE)".to_owned();
        assert_eq!(places("select a\u{a0}from b"), [(7, 8, space.clone())]);
        assert_eq!(places("select 1 \u{a0}, 2"), [(9, 9, space)]);
        assert_eq!(places("select\x08 1"), [(6, 6, "U+0008 (a control character)".to_owned())]);
        assert_eq!(places("sel\u{85}ect 1"), [(0, 3, "U+0085 (a control character)".to_owned())]);
    }

    #[test]
    fn what_is_quoted_or_a_comment_or_can_be_seen_is_none() {
        for statement in [
            "select '\u{a0}', \"\u{200b}\", $$\u{feff}$$ -- \u{2060}\n /* \u{202e} */",
            "select größe, 名前, имя\r\n\tfrom\x0ct",
            "select کتاب\u{200c}ها, क्\u{200d}ष",
            "select 1",
        ] {
            assert_eq!(places(statement), [], "{statement:?}");
        }
    }
}
