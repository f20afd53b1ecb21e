//! What events say that are worth knowing. An event itself has only values: its text lies in a library of Windows,
//! which nobody has who reads a file elsewhere.

/// Number, end of the provider's name, text in English with `%1` for the first value.
const TEXTS: [(&str, &str, &str); 31] = [
    ("41", "Kernel-Power", "The system has rebooted without cleanly shutting down first."),
    ("6008", "EventLog", "The previous system shutdown at %1 on %2 was unexpected."),
    (
        "1001",
        "WER-SystemErrorReporting",
        "The computer has rebooted from a bugcheck.  The bugcheck was: %1. A dump was saved in: %2.",
    ),
    (
        "1001",
        "BugCheck",
        "The computer has rebooted from a bugcheck.  The bugcheck was: %1. A dump was saved in: %2.",
    ),
    ("55", "Windows-Ntfs", "A corruption was discovered in the file system structure on volume %1."),
    (
        "55",
        "Ntfs",
        "The file system structure on the disk is corrupt and unusable. Please run the chkdsk utility on the volume %2.",
    ),
    (
        "50",
        "Windows-Ntfs",
        "{Delayed Write Failed} Windows was unable to save all the data for the file %1. The data has been lost.",
    ),
    (
        "50",
        "Ntfs",
        "{Delayed Write Failed} Windows was unable to save all the data for the file %2. The data has been lost.",
    ),
    ("7", "disk", "The device, %1, has a bad block."),
    ("11", "disk", "The driver detected a controller error on %1."),
    ("51", "disk", "An error was detected on device %1 during a paging operation."),
    (
        "52",
        "disk",
        "The driver has detected that device %1 has predicted that it will fail. Immediately back up your data and replace your hard disk drive. A failure may be imminent.",
    ),
    ("153", "disk", "The IO operation at logical block address %2 for Disk %3 (PDO name: %4) was retried."),
    ("157", "disk", "Disk %2 has been surprise removed."),
    ("129", "storahci", "Reset to device, %1, was issued."),
    ("129", "stornvme", "Reset to device, %1, was issued."),
    ("129", "vioscsi", "Reset to device, %1, was issued."),
    ("129", "viostor", "Reset to device, %1, was issued."),
    ("2013", "srv", "The %2 disk is at or near capacity.  You may need to delete some files."),
    (
        "2004",
        "Resource-Exhaustion-Detector",
        "Windows successfully diagnosed a low virtual memory condition.",
    ),
    ("7000", "Service Control Manager", "The %1 service failed to start due to the following error: %2"),
    ("7023", "Service Control Manager", "The %1 service terminated with the following error: %2"),
    (
        "7024",
        "Service Control Manager",
        "The %1 service terminated with the following service-specific error: %2",
    ),
    (
        "7031",
        "Service Control Manager",
        "The %1 service terminated unexpectedly.  It has done this %2 time(s).",
    ),
    (
        "7034",
        "Service Control Manager",
        "The %1 service terminated unexpectedly.  It has done this %2 time(s).",
    ),
    ("7036", "Service Control Manager", "The %1 service entered the %2 state."),
    (
        "1000",
        "Application Error",
        "Faulting application name: %1, version: %2, time stamp: 0x%3, faulting module name: %4, version: %5, time stamp: 0x%6, exception code: 0x%7, fault offset: 0x%8",
    ),
    (
        "1002",
        "Application Hang",
        "The program %1 version %2 stopped interacting with Windows and was closed.",
    ),
    ("18", "WHEA-Logger", "A fatal hardware error has occurred."),
    (
        "4199",
        "Tcpip",
        "The system detected an address conflict for IP address %2 with the system having network hardware address %3.",
    ),
    (
        "4231",
        "Tcpip",
        "A request to allocate an ephemeral port number from the global TCP port space has failed due to all such ports being in use.",
    ),
];

/// The text of a known event.
pub fn of(provider: &str, number: &str) -> Option<&'static str> {
    let is_by = |name: &str| {
        let start = provider.len().checked_sub(name.len());
        let end = start.and_then(|start| provider.get(start..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(name))
            && start.is_some_and(|start| start == 0 || matches!(provider.as_bytes()[start - 1], b'-' | b' '))
    };
    TEXTS.iter().find(|(known, name, _)| *known == number && is_by(name)).map(|(_, _, text)| *text)
}

/// The text with its values; what has none stays as it is.
pub fn fill<'a>(text: &str, value: impl Fn(usize) -> Option<&'a str>) -> String {
    let mut filled = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('%') {
        filled.push_str(before);
        let digit = behind.bytes().next().filter(|byte| (b'1'..=b'9').contains(byte));
        match digit.and_then(|digit| value(usize::from(digit - b'1'))) {
            Some(value) => {
                filled.push_str(value.trim());
                rest = &behind[1..];
            }
            None => {
                filled.push('%');
                rest = behind;
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rules;

    #[test]
    fn a_known_text_is_known_to_the_rules() {
        let rules = Rules::standard();
        for (number, provider, text) in TEXTS {
            let values = match provider {
                "WER-SystemErrorReporting" | "BugCheck" => ["0x0000007e (0x1)", "MEMORY.DMP", ""],
                "srv" => ["", "C:", ""],
                _ => [r"\Device\RaidPort0", "1", "1"],
            };
            let text = fill(text, |number| values.get(number).copied());
            if number != "7036" {
                assert!(rules.find(&text).is_some(), "{provider} {number}: {text}");
            }
        }
    }

    #[test]
    fn a_provider_is_known_by_the_end_of_its_name() {
        assert!(of("Microsoft-Windows-Kernel-Power", "41").is_some_and(|text| text.contains("rebooted")));
        assert!(of("Microsoft-Windows-Ntfs", "55").is_some_and(|text| text.contains("%1")));
        assert!(of("Ntfs", "55").is_some_and(|text| text.contains("%2")));
        assert!(of("Disk", "7").is_some());
        assert_eq!(
            (of("mydisk", "7"), of("disk", "8"), of("", "7"), of("äisk", "7")),
            (None, None, None, None)
        );
        assert_eq!(fill("%1 100% %9 %", |number| (number == 0).then_some(" a ")), "a 100% %9 %");
    }
}
