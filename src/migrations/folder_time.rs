//! The timestamps at the start of the names of Drizzle's folders: `YYYYMMDDHHMMSS`, UTC.

/// The timestamp of a folder's name, in Unix milliseconds. As with JavaScript's `Date.UTC`, which
/// drizzle-orm uses, month 13 is January of the next year.
pub fn folder_time(folder: &str) -> Option<i64> {
    let digits = folder.get(..14)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| digits.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    // Date.UTC reads the years 0 to 99 as 1900 to 1999.
    let year = if year < 100 { year + 1900 } else { year };
    let (year, month) = (year + (month - 1).div_euclid(12), (month - 1).rem_euclid(12) + 1);
    let days = days_from_civil(year, month) + day - 1;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

/// Days from 1970-01-01 to the first of this month (Howard Hinnant's `days_from_civil`).
fn days_from_civil(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Unix milliseconds as `YYYYMMDDHHMMSS`, UTC (Howard Hinnant's `civil_from_days`).
pub fn folder_prefix(milliseconds: i64) -> String {
    let seconds = milliseconds.div_euclid(1000);
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timestamp_of_a_folder_overflows_as_in_javascript() {
        assert_eq!(folder_time("20231399999999_x"), Some(1_712_896_839_000));
        assert_eq!(folder_time("19700101000000_x"), Some(0));
        assert_eq!(folder_time("20240229120000_x"), Some(1_709_208_000_000));
        assert_eq!(folder_time("0000_init"), None);
    }

    #[test]
    fn a_time_becomes_the_prefix_of_a_folder() {
        assert_eq!(folder_prefix(0), "19700101000000");
        assert_eq!(folder_prefix(1_709_208_000_000), "20240229120000");
        assert_eq!(folder_prefix(1_735_689_599_999), "20241231235959");
    }
}
