//! Recognizes text that is not UTF-8, as some editors and shells of Windows save it. Pure.

/// How many bytes of a file without a byte order mark are looked at.
const SAMPLE: usize = 512;

/// `UTF-16` or `UTF-32`, if the file is that: by its byte order mark, or because every other byte of
/// most of its first characters is NUL.
pub fn other_than_utf8(content: &[u8]) -> Option<&'static str> {
    match content {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        _ => is_utf16(content.get(..SAMPLE).unwrap_or(content)).then_some("UTF-16"),
    }
}

fn is_utf16(sample: &[u8]) -> bool {
    let units = sample.chunks_exact(2).len();
    let little = sample.chunks_exact(2).filter(|unit| matches!(unit, [1..=255, 0])).count();
    let big = sample.chunks_exact(2).filter(|unit| matches!(unit, [0, 1..=255])).count();
    // Four bytes can be anything.
    units > 2 && little.min(big) == 0 && 2 * little.max(big) > units
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQL: &str = "-- Größe\r\nselect 1;\r\n";

    fn utf16(text: &str, bytes: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn utf16_is_known_with_and_without_its_mark() {
        for text in [SQL.to_owned(), format!("\u{feff}{SQL}"), "select 1;".repeat(999)] {
            for content in [utf16(&text, u16::to_le_bytes), utf16(&text, u16::to_be_bytes)] {
                assert_eq!(other_than_utf8(&content), Some("UTF-16"), "{text}");
                assert_eq!(other_than_utf8(&[&content[..], b"\0"].concat()), Some("UTF-16"));
            }
        }
        let utf32: Vec<u8> =
            format!("\u{feff}{SQL}").chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        assert_eq!(other_than_utf8(&utf32), Some("UTF-32"));
        assert_eq!(other_than_utf8(b"\xff\xfe"), Some("UTF-16"));
    }

    #[test]
    fn utf8_is_no_utf16_whatever_is_wrong_with_it() {
        let texts: [&[u8]; 6] =
            [b"", SQL.as_bytes(), b"select 1\0", b"a\0", b"\xff select 1", b"\0\0\0\0\0\0\0\0"];
        for content in texts {
            assert_eq!(other_than_utf8(content), None, "{content:?}");
        }
    }
}
