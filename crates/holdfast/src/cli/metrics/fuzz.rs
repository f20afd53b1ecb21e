//! Series of numbers that an enemy wrote, through the detector too. What is looked for is a panic, a probability that is
//! none, and a word of the file that is said untamed.

use super::Analysis;
use super::csv::Rows;
use holdfast_fuzz::{Damage, is_usual, run, show};

const GOOD: [&[u8]; 4] = [
    b"timestamp,value\n2014-04-01 00:00:00,1\n2014-04-01 00:05:00,2\n2014-04-01 00:10:00,3\n",
    b"1396310700,5\n1396310701,NaN\n1396310702,\n1396310703,1e300\n1396310704,-1e300\n",
    b"\xef\xbb\xbfhost,value,time\r\na,5,1396310700000\r\na,6,1396310700001\r\n",
    b"\"when\",\"cpu\"\n\"2014-04-01T02:05:00+02:00\",\"0.5\"\n",
];

const WORDS: [&[u8]; 14] = [
    b"\n",
    b",",
    b"\"",
    b"NaN",
    b"inf",
    b"1e999",
    b"-1e308",
    b"1e308",
    b"18446744073709551615",
    b"9999-12-31T23:59:59Z",
    b"1970-01-01T00:00:00Z",
    b"\x1b[2J",
    b"\xff",
    b"0\n1396310700,0\n",
];

#[test]
fn fuzz_series_of_numbers() {
    let damage = Damage { good: &GOOD, words: &WORDS, most: 1 << 13 };
    let (mut read, mut refused) = (0, 0);
    run("series", 800, |chance| {
        let input = damage.input(chance);
        let mut analysis = Analysis::new("x".into());
        for row in Rows::new(&input[..]) {
            match row {
                Ok(row) => {
                    read += 1;
                    let verdict = analysis.add(&row);
                    assert!((0.0..=1.0).contains(&verdict.probability), "{row:?} of {}", show(&input));
                }
                Err(error) => {
                    refused += 1;
                    let said = error.to_string();
                    assert!(!said.chars().any(char::is_control) && said.len() < 1_000, "{said:?}");
                }
            }
        }
        analysis.close();
        let document = analysis.document().to_string();
        assert!(!document.chars().any(char::is_control), "{document:?}");
    });
    assert!(!is_usual() || (read > 1_000 && refused > 200), "{read} {refused}");
}
