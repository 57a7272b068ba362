//! How JavaScript's `localeCompare` orders names: by ICU's root collation, not by bytes.
//!
//! drizzle-orm 1.x sorts folders with it. It matters only where names share a second, so this
//! knows the characters of such names, ASCII and Latin letters, and says so where one has others.

/// Characters that are alike to nothing else, in their order.
const SINGLE: &str = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789";

/// Letters, in their order. In each line the accents tell apart first, and then the case.
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

/// What names are ordered by: all characters first, then all accents, then all cases. None where a
/// character is unknown here.
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
    if let Some(place) = SINGLE.chars().position(|single| single == c) {
        return Some((place, 0, 0));
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
    fn every_printable_ascii_character_is_known_and_has_its_own_place() {
        let keys: std::collections::HashSet<_> =
            (' '..='~').map(|c| key(&c.to_string()).unwrap()).collect();
        assert_eq!(keys.len(), 95);
    }

    #[test]
    fn a_name_in_another_script_is_not_guessed_at() {
        assert_eq!(key("имя"), None);
        assert_eq!(key("straße"), None);
    }
}
