//! What the first bytes of a file tell of it: that it is packed, or no text.

use super::super::CliError;

/// The mark of UTF-8, which some programs write at the start of a file.
pub const MARK: &[u8] = b"\xef\xbb\xbf";

/// From this share on, in percent, bytes that no text has are noted.
const STRANGE: usize = 10;

/// What begins so, what it is called, and what unpacks it.
const PACKED: [(&[u8], &str, &str); 8] = [
    (b"\x1f\x8b", "packed by gzip", "zcat FILE"),
    (b"PK\x03\x04", "a zip archive", "unzip -p FILE"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", "zstd -dc FILE"),
    (b"\xfd7zXZ\0", "packed by xz", "xz -dc FILE"),
    (b"BZh91AY&SY", "packed by bzip2", "bzip2 -dc FILE"),
    (b"\x04\x22\x4d\x18", "packed by lz4", "lz4 -dc FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x -so FILE"),
    (b"LPKSHHRH", "a journal of systemd in its own form", "journalctl --file FILE -o json"),
];

/// Refuses what must be unpacked first: its bytes are no lines.
pub fn refuse_packed(name: &str, first: &[u8]) -> Result<(), CliError> {
    let Some((_, what, unpack)) = PACKED.iter().find(|(start, ..)| first.starts_with(start)) else {
        return Ok(());
    };
    Err(CliError::Said {
        error: format!("cannot read `{name}`"),
        cause: format!("it is {what}"),
        hint: format!("pipe what is in it: `{unpack} | holdfast logs analyze -`"),
    })
}

/// How many percent of these bytes are control characters or no UTF-8, if they are many.
pub fn strange(first: &[u8]) -> Option<usize> {
    let invalid: usize = first.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    let is_control = |byte: &u8| (*byte < b' ' || *byte == 0x7f) && !b"\t\n\r\x0c\x1b".contains(byte);
    let control = first.iter().filter(|byte| is_control(byte)).count();
    let share = (invalid + control) * 100 / first.len().max(1);
    (share >= STRANGE).then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_language_is_text_and_noise_is_not() {
        for text in ["", "plain\n", "\x1b[31mred\x1b[0m\tfine\r\n", "数据库已停止 🦀\n", "Überlauf\0\n"]
        {
            assert_eq!(strange(text.repeat(50).as_bytes()), None, "{text}");
        }
        let mut chance = 7_u64;
        let noise: Vec<u8> = (0..16_384)
            .map(|_| {
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                (chance >> 24) as u8
            })
            .collect();
        assert!(strange(&noise).is_some_and(|share| (40..80).contains(&share)), "{:?}", strange(&noise));
        assert_eq!((strange(&[0; 9]), strange("Ошибка".as_bytes())), (Some(100), None));
        assert_eq!(strange(b"\xce\xf8\xe8\xe1\xea\xe0 7"), Some(75)); // the same in Windows-1251
    }
}
