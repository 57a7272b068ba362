//! Orders names as JavaScript's `localeCompare` does, by ICU's root collation. drizzle-orm 1.x sorts
//! folders with it, which matters only for names with the same timestamp. Knows ASCII and Latin
//! letters.

/// Characters without variants, in their order.
const SINGLE: &str = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789";

/// Letters, in their order. Each line has the variants of one: by accent, then by case.
const LETTERS: [&str; 26] = [
    "aA áÁ àÀ ăĂ âÂ åÅ äÄ ãÃ ąĄ āĀ",
    "bB",
    "cC ćĆ ĉĈ čČ ċĊ çÇ",
    "dD ďĎ đĐ ðÐ",
    "eE éÉ èÈ ĕĔ êÊ ěĚ ëË ėĖ ęĘ ēĒ",
    "fF",
    "gG ğĞ ĝĜ ġĠ ģĢ",
    "hH ĥĤ ħĦ",
    "iI íÍ ìÌ ĭĬ îÎ ïÏ ĩĨ İ įĮ īĪ",
    "jJ ĵĴ",
    "kK ķĶ",
    "lL ĺĹ ľĽ ļĻ łŁ",
    "mM",
    "nN ńŃ ňŇ ñÑ ņŅ",
    "oO óÓ òÒ ŏŎ ôÔ öÖ őŐ õÕ øØ ōŌ",
    "pP",
    "qQ",
    "rR ŕŔ řŘ ŗŖ",
    "sS śŚ ŝŜ šŠ şŞ",
    "tT ťŤ ţŢ",
    "uU úÚ ùÙ ŭŬ ûÛ ůŮ üÜ űŰ ũŨ ųŲ ūŪ",
    "vV",
    "wW ŵŴ",
    "xX",
    "yY ýÝ ŷŶ ÿŸ",
    "zZ źŹ žŽ żŻ",
];

/// The sort key of a name: all letters first, then all accents, then all cases. `None` if it has an
/// unknown character.
pub fn key(name: &str) -> Option<(Vec<usize>, Vec<usize>, Vec<usize>)> {
    let (mut characters, mut accents, mut cases) = (Vec::new(), Vec::new(), Vec::new());
    for c in name.chars() {
        let (character, accent, case) = weights(c)?;
        characters.push(character);
        accents.push(accent);
        cases.push(case);
    }
    Some((characters, accents, cases))
}

fn weights(c: char) -> Option<(usize, usize, usize)> {
    if let Some(index) = SINGLE.chars().position(|single| single == c) {
        return Some((index, 0, 0));
    }
    LETTERS.iter().enumerate().find_map(|(letter, line)| {
        line.split(' ').enumerate().find_map(|(accent, cases)| {
            let case = cases.chars().position(|letter| letter == c)?;
            Some((SINGLE.len() + letter, accent, case))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_as_node_orders_them() {
        let node = ["a", "A", "ä", "a_1", "a-1", "a1", "a10", "a2", "az", "äz", "b", "B", "zoë"];
        let mut sorted = node;
        sorted.reverse();
        sorted.sort_by_key(|name| key(name));
        assert_eq!(sorted, node);
    }

    #[test]
    fn every_printable_ascii_character_has_its_own_key() {
        let keys: std::collections::HashSet<_> =
            (' '..='~').map(|c| key(&c.to_string()).unwrap()).collect();
        assert_eq!(keys.len(), 95);
    }

    #[test]
    fn a_name_with_unknown_characters_has_no_key() {
        assert_eq!(key("имя"), None);
        assert_eq!(key("straße"), None);
    }
}
