//! Reads the times that clouds write: every form of a moment that RFC 3339 and ISO 8601 allow, and the dates of mail.
//!
//! Pure, and without trust in any byte. A time without a zone is no moment, and is not guessed at.

use jiff::civil::{Date, ISOWeekDate, Weekday};
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

/// The longest text that is looked at.
const LONGEST: usize = 80;

const HOUR: i128 = 3_600_000_000_000;
const MINUTE: i128 = HOUR / 60;
const SECOND: i128 = MINUTE / 60;

/// The moment that this text names.
///
/// Dates may be `2026-01-31`, `20260131`, by week `2026-W05-6` or by day of the year `2026-031`. Between date and time
/// stands `T` in either case, a space, or `_`. The time goes down to hours, minutes or seconds, with any number of digits
/// of a fraction of the last after a point or a comma; `24:00` is the next midnight, and a leap second the second after
/// it. The zone is `Z` in either case, `UTC`, `GMT`, or an offset such as `+02:00`, `+0200` or `-02`. Beside these a date
/// of mail is read, as `21 Jan 2019 09:00:43 GMT`, whose zone has to be one of these too.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.len() > LONGEST {
        return None;
    }
    iso(text).or_else(|| mail(text))
}

fn iso(text: &str) -> Option<Timestamp> {
    let mut left = Left(text);
    let date = left.date()?;
    let spaces = left.0.len() - left.0.trim_start_matches(' ').len();
    match spaces {
        0 => left.one_of(&['T', 't', '_'])?,
        _ => left.0 = &left.0[spaces..],
    }
    let time = left.time_of_day()?;
    left.0 = left.0.trim_start_matches(' ');
    let offset = left.offset()?;
    if !left.0.is_empty() {
        return None;
    }
    let midnight = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
    midnight.checked_add(SignedDuration::from_nanos_i128(time - offset)).ok()
}

/// `21 Jan 2019 09:00:43 GMT`, with or without a weekday, right or wrong.
fn mail(text: &str) -> Option<Timestamp> {
    let (date, zone) = text.rsplit_once(' ')?;
    let mut zone = Left(zone);
    let offset = zone.offset()?;
    if !zone.0.is_empty() {
        return None;
    }
    // A weekday adds nothing to a date, and clouds are known to name a wrong one.
    let parser = DateTimeParser::new().relaxed_weekday(true);
    let utc = parser.parse_timestamp(format!("{date} +0000")).ok()?;
    utc.checked_add(SignedDuration::from_nanos_i128(-offset)).ok()
}

/// What has not been read yet.
struct Left<'a>(&'a str);

impl Left<'_> {
    fn date(&mut self) -> Option<Date> {
        match self.digits_ahead() {
            8 => {
                let (year, month, day) = (self.number(4)?, self.number(2)?, self.number(2)?);
                Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
            }
            7 => {
                let (year, day) = (self.number(4)?, self.number(3)?);
                day_of_year(year, day)
            }
            4 => self.date_with_parts(),
            _ => None,
        }
    }

    fn date_with_parts(&mut self) -> Option<Date> {
        let year = self.number(4)?;
        let is_extended = self.one_of(&['-']).is_some();
        if self.one_of(&['W', 'w']).is_some() {
            let week = self.number(2)?;
            if is_extended {
                self.one_of(&['-'])?;
            }
            let day = Weekday::from_monday_one_offset(i8::try_from(self.number(1)?).ok()?).ok()?;
            return ISOWeekDate::new(year, i8::try_from(week).ok()?, day).ok().map(ISOWeekDate::date);
        }
        match (is_extended, self.digits_ahead()) {
            (true, 3) => day_of_year(year, self.number(3)?),
            (true, 2) => {
                let month = self.number(2)?;
                self.one_of(&['-'])?;
                Date::new(year, i8::try_from(month).ok()?, i8::try_from(self.number(2)?).ok()?).ok()
            }
            _ => None,
        }
    }

    /// Nanoseconds since midnight.
    fn time_of_day(&mut self) -> Option<i128> {
        let mut parts = [0_i128; 3];
        let units = [HOUR, MINUTE, SECOND];
        let mut last = 0;
        parts[0] = self.number(2)?.into();
        while last < 2 {
            let is_extended = self.one_of(&[':']).is_some();
            if !is_extended && self.digits_ahead() == 0 {
                break;
            }
            last += 1;
            parts[last] = self.number(2)?.into();
        }
        let mut time = parts.iter().zip(units).map(|(part, unit)| part * unit).sum::<i128>();
        if self.one_of(&['.', ',']).is_some() {
            time += self.fraction(units[last])?;
        }
        let is_whole_day = parts[0] == 24 && time == 24 * HOUR;
        let is_time = parts[0] < 24 && parts[1] < 60 && parts[2] <= 60;
        (is_whole_day || is_time).then_some(time)
    }

    /// This part of a unit, to the nanosecond.
    fn fraction(&mut self, unit: i128) -> Option<i128> {
        let count = self.digits_ahead();
        let (digits, left) = self.0.split_at(count);
        self.0 = left;
        // What is below the nanosecond of an hour is of no use.
        let digits = &digits[..count.min(18)];
        let scale = 10_i128.pow(u32::try_from(digits.len()).ok()?);
        Some(digits.parse::<i128>().ok()? * unit / scale)
    }

    /// What the zone's clocks are ahead of UTC.
    fn offset(&mut self) -> Option<i128> {
        for zone in ["UTC", "GMT", "Z", "z"] {
            if let Some(left) = self.0.strip_prefix(zone) {
                self.0 = left;
                return Some(0);
            }
        }
        let sign = if self.one_of(&['+']).is_some() { 1 } else { self.one_of(&['-', '−']).map(|()| -1)? };
        let hours = self.number(2)?;
        let is_extended = self.one_of(&[':']).is_some();
        let minutes = if is_extended || self.digits_ahead() > 0 { self.number(2)? } else { 0 };
        (hours < 24 && minutes < 60).then(|| sign * (i128::from(hours) * HOUR + i128::from(minutes) * MINUTE))
    }

    fn digits_ahead(&self) -> usize {
        self.0.bytes().take_while(u8::is_ascii_digit).count()
    }

    /// A number of exactly so many digits; more may follow.
    fn number(&mut self, digits: usize) -> Option<i16> {
        if self.digits_ahead() < digits {
            return None;
        }
        let (number, left) = self.0.split_at(digits);
        self.0 = left;
        number.parse().ok()
    }

    fn one_of(&mut self, signs: &[char]) -> Option<()> {
        self.0 = self.0.strip_prefix(signs)?;
        Some(())
    }
}

fn day_of_year(year: i16, day: i16) -> Option<Date> {
    Date::new(year, 1, 1).ok()?.with().day_of_year(day).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One moment, in every form.
    const FORMS: [&str; 26] = [
        "2017-09-18T08:22:00Z",
        "2017-09-18T08:22:00+00:00",
        "2017-09-18T08:22:00-00:00",
        "2017-09-18 08:22:00Z",
        "2017-09-18 08:22:00 +00:00",
        "2017-09-18 08:22:00 UTC",
        "2017-09-18t08:22:00z",
        "2017-09-18_08:22:00Z",
        "2017-09-18T08:22:00.000000000000Z",
        "2017-09-18T08:22:00,0Z",
        "2017-09-18T08:22Z",
        "2017-09-18T08.3666666666666666666666666Z",
        "2017-09-18T08:21.99999999999999999999Z",
        "2017-09-18T10:22:00+02:00",
        "2017-09-18T10:22:00+0200",
        "2017-09-18T10:22:00+02",
        "2017-09-18T03:52:00-04:30",
        "2017-09-18T03:52:00−04:30",
        "2017-09-19T07:21:00+22:59",
        "20170918T082200Z",
        "20170918T0822+0000",
        "2017-W38-1T08:22:00Z",
        "2017W381T082200Z",
        "2017-261T08:22:00Z",
        "2017261T082200Z",
        " 18 Sep 2017 08:22:00 GMT ",
    ];

    #[test]
    fn every_form_of_a_moment_is_read() {
        for form in FORMS {
            let read = read(form).map(|at| at.round(jiff::Unit::Second).map(|at| at.to_string()));
            assert!(matches!(&read, Some(Ok(at)) if at == "2017-09-18T08:22:00Z"), "{form}: {read:?}");
        }
        let read = |text| read(text).map(|at| at.to_string());
        assert_eq!(read("2015-01-05T18:02:00.250Z").as_deref(), Some("2015-01-05T18:02:00.25Z"));
        assert_eq!(read("2015-01-05T18:02:00.123456789999Z").as_deref(), Some("2015-01-05T18:02:00.123456789Z"));
        assert_eq!(read("2016-12-31T23:59:60Z").as_deref(), Some("2017-01-01T00:00:00Z"), "a leap second");
        assert_eq!(read("2016-12-31T24:00:00Z").as_deref(), Some("2017-01-01T00:00:00Z"));
        assert_eq!(read("2016-366T00:00Z").as_deref(), Some("2016-12-31T00:00:00Z"));
        assert_eq!(read("Mon, 21 Jan 2019 10:00:43 +0100").as_deref(), Some("2019-01-21T09:00:43Z"));
        assert_eq!(read("Fri, 21 Jan 2019 09:00:43 GMT").as_deref(), Some("2019-01-21T09:00:43Z"), "it was a Monday");
        assert_eq!(read("1 Feb 2026 00:00:00 UTC").as_deref(), Some("2026-02-01T00:00:00Z"));
    }

    #[test]
    fn what_names_no_moment_is_not_guessed_at() {
        for text in [
            "",
            "none",
            "soon",
            "2017",
            "1505722920",
            "2017-09-18",
            "2017-09-18Z",
            "2017-09-18T08:22:00",
            "2017-09-18 08:22:00",
            "20170918T082200",
            "2017-09-18T08:22:00+",
            "2017-09-18T08:22:00+2",
            "2017-09-18T08:22:00+02:0",
            "2017-09-18T08:22:00+24:00",
            "2017-09-18T08:22:00ZZ",
            "2017-09-18T08:22:00Z[UTC]",
            "2017-09-18T08:22:00 CEST",
            "2017-09-18T08:22:00.Z",
            "2017-09-18T08:22:61Z",
            "2017-09-18T08:60:00Z",
            "2017-09-18T24:00:01Z",
            "2017-09-18T25:00:00Z",
            "2017-02-29T08:22:00Z",
            "2017-13-01T08:22:00Z",
            "2017-366T08:22:00Z",
            "2017-W54-1T08:22:00Z",
            "2017-W38-8T08:22:00Z",
            "2017-9-18T08:22:00Z",
            "-002017-09-18T08:22:00Z",
            "٢٠١٧-09-18T08:22:00Z",
            "21 Jan 2019 09:00:43",
            "21 Jan 2019 09:00:43 EST",
            "31 Feb 2019 09:00:43 GMT",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&format!("2017-09-18T08:22:00.{}Z", "0".repeat(100_000))), None);
    }

    proptest::proptest! {
        /// It agrees with the library's own reader of the forms that both know, and no text makes it panic.
        #[test]
        fn moments_are_read_as_they_were_written(
            second in -62_135_596_800_i64..253_402_207_200,
            nanosecond in 0..1_000_000_000_i32,
            text in "[-0-9TtZzW:.,+ _−é]{0,40}",
        ) {
            let at = Timestamp::new(second, nanosecond).unwrap_or_default();
            proptest::prop_assert_eq!(read(&at.to_string()), Some(at));
            let shifted = at.display_with_offset(Offset::constant(5)).to_string();
            if !shifted.starts_with('-') {
                proptest::prop_assert_eq!(read(&shifted), Some(at), "{}", shifted);
            }
            if let Some(read) = read(&text) {
                proptest::prop_assert!(read >= Timestamp::MIN);
            }
        }
    }
}
