//! Times of certificates and stamps, each in its one spelling, as microseconds since 1970.
//!
//! Refuses to do: local times, offsets, missing seconds, trailing zeros of a fraction, leap seconds (no moment since
//! 1970 could be told from the one after), years before 1970.

use crate::der::{GENERALIZED_TIME, Malformed, Result, UTC_TIME};

pub(crate) const SECOND: u64 = 1_000_000;

/// The GeneralizedTime of a stamp: `YYYYMMDDhhmmss[.f]Z`. Returns microseconds, rounded down, and whether anything was
/// rounded away (some authorities write tenths of a microsecond).
pub(crate) fn of_stamp(text: &[u8]) -> Result<(u64, bool)> {
    let text = text.strip_suffix(b"Z").ok_or(Malformed)?;
    let (whole, fraction) = text.split_at_checked(14).ok_or(Malformed)?;
    let seconds = since_1970(number(&whole[..4])?, &whole[4..])?;
    let digits = match fraction {
        [] => &[][..],
        [b'.', digits @ ..] if !digits.is_empty() && digits.len() <= 9 && digits.last() != Some(&b'0') => {
            digits
        }
        _ => return Err(Malformed),
    };
    let nanos = number(digits)? * 10u64.pow(9 - digits.len() as u32);
    Ok((seconds * SECOND + nanos / 1000, !nanos.is_multiple_of(1000)))
}

/// The other way round: the GeneralizedTime of a stamp at these Unix milliseconds. Beyond the year 9999, its last moment.
pub(crate) fn to_stamp(unix_millis: u64) -> String {
    const LAST: u64 = 253_402_300_799_999;
    let millis = unix_millis.min(LAST);
    let (days, second) = (millis / 86_400_000, millis / 1_000 % 86_400);
    // Days in eras of 400 years, each year beginning in March, so that leap days come last.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let whole = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}");
    match millis % 1_000 {
        0 => format!("{whole}Z"),
        fraction => format!("{whole}.{}Z", format!("{fraction:03}").trim_end_matches('0')),
    }
}

/// A time of a certificate's validity, to the second.
pub(crate) fn of_certificate(tag: u8, text: &[u8]) -> Result<u64> {
    let text = text.strip_suffix(b"Z").ok_or(Malformed)?;
    let seconds = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year = number(&text[..2])?;
            // RFC 5280, 4.1.2.5.1. What begins before 1970 has begun.
            let year = if year >= 50 { 1900 + year } else { 2000 + year };
            if year < 1970 { 0 } else { since_1970(year, &text[2..])? }
        }
        (GENERALIZED_TIME, 14) => since_1970(number(&text[..4])?, &text[4..])?,
        _ => return Err(Malformed),
    };
    Ok(seconds * SECOND)
}

fn number(digits: &[u8]) -> Result<u64> {
    let digit = |number: u64, digit: &u8| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')).ok_or(Malformed)
    };
    digits.iter().try_fold(0, digit)
}

/// Seconds from 1970 to this year's `MMDDhhmmss`.
fn since_1970(year: u64, rest: &[u8]) -> Result<u64> {
    let pair = |at: usize| number(rest.get(2 * at..2 * at + 2).ok_or(Malformed)?);
    let (month, day, hour, minute, second) = (pair(0)?, pair(1)?, pair(2)?, pair(3)?, pair(4)?);
    let leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let days_of = |month: u64| match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(leap(year)),
        _ => 31,
    };
    let fine = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_of(month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !fine {
        return Err(Malformed);
    }
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let days = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    let days = days + (1..month).map(days_of).sum::<u64>() + day - 1;
    Ok(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_read_to_the_microsecond() {
        for (text, micros, rounded) in [
            ("19700101000000Z", 0, false),
            ("20000229235959Z", 951_868_799_000_000, false),
            ("20261121233000.5Z", 1_795_303_800_500_000, false),
            ("20261121233000.000001Z", 1_795_303_800_000_001, false),
            ("20261121233000.1234567Z", 1_795_303_800_123_456, true),
            ("99991231235959.999999999Z", 253_402_300_799_999_999, true),
        ] {
            assert_eq!(of_stamp(text.as_bytes()), Ok((micros, rounded)), "{text}");
        }
        for bad in [
            "",
            "Z",
            "20261121233000",
            "202611212330Z",
            "20261121233000.Z",
            "20261121233000.50Z",
            "20261121233000.0Z",
            "20261121233000,5Z",
            "20261121233000.1234567891Z",
            "20261121233000+0100",
            "20261121233000.5z",
            "20261121233060Z",
            "20261121240000Z",
            "20260229000000Z",
            "21000229000000Z",
            "20261301000000Z",
            "20260001000000Z",
            "20260100000000Z",
            "19691231235959Z",
            "2026112123300 Z",
            "2026112123300.5Z",
        ] {
            assert_eq!(of_stamp(bad.as_bytes()), Err(Malformed), "{bad}");
        }
    }

    #[test]
    fn stamps_are_written_as_they_are_read() {
        for (millis, text) in [
            (0, "19700101000000Z"),
            (951_868_799_000, "20000229235959Z"),
            (1_795_303_800_500, "20261121233000.5Z"),
            (1_795_303_800_001, "20261121233000.001Z"),
            (253_402_300_799_999, "99991231235959.999Z"),
        ] {
            assert_eq!(to_stamp(millis), text);
        }
        assert_eq!(to_stamp(u64::MAX), "99991231235959.999Z");
        // Every day and a prime number of milliseconds, over four centuries.
        for millis in (0..146_097).map(|day: u64| day * 86_400_000 + day * 7_919 % 86_400_000) {
            assert_eq!(of_stamp(to_stamp(millis).as_bytes()), Ok((millis * 1_000, false)));
        }
    }

    #[test]
    fn certificates_have_two_spellings_of_time() {
        let read = |tag, text: &str| of_certificate(tag, text.as_bytes());
        assert_eq!(read(UTC_TIME, "261121233000Z"), Ok(1_795_303_800_000_000));
        assert_eq!(read(UTC_TIME, "500101000000Z"), Ok(0), "1950");
        assert_eq!(read(UTC_TIME, "491231235959Z"), Ok(2_524_607_999_000_000));
        assert_eq!(read(GENERALIZED_TIME, "20500101000000Z"), Ok(2_524_608_000_000_000));
        for (tag, bad) in [
            (UTC_TIME, "2611212330Z"),
            (UTC_TIME, "20261121233000Z"),
            (UTC_TIME, "261121233000+0000"),
            (GENERALIZED_TIME, "20500101000000.5Z"),
            (GENERALIZED_TIME, "500101000000Z"),
            (0x16, "20500101000000Z"),
        ] {
            assert_eq!(read(tag, bad), Err(Malformed), "{bad}");
        }
    }
}
