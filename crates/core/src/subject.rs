//! What a signal, a fault or an action is about: a host, a VM, its guest, or an application in it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was written.
    #[error("a name may not be empty")]
    Empty,
    /// More than [`MAX_NAME`] bytes.
    #[error("a name has at most {MAX_NAME} characters, this one has {0}")]
    TooLong(usize),
    /// The first character is neither a small letter nor a digit.
    #[error("a name starts with a small letter or a digit, not with {0:?}")]
    BadStart(char),
    /// A character outside `a-z 0-9 - _ .`.
    #[error("a name is made of a-z, 0-9, `-`, `_` and `.`, not of {0:?}")]
    BadCharacter(char),
    /// `..` could climb out of a folder.
    #[error("a name may not hold `..`")]
    Dots,
}

/// The longest name, in bytes. Names become files and sockets; this leaves room for both.
pub const MAX_NAME: usize = 48;

fn check(text: &str) -> Result<(), NameError> {
    let first = text.chars().next().ok_or(NameError::Empty)?;
    if text.len() > MAX_NAME {
        return Err(NameError::TooLong(text.chars().count()));
    }
    if !(first.is_ascii_lowercase() || first.is_ascii_digit()) {
        return Err(NameError::BadStart(first));
    }
    let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(*c);
    if let Some(bad) = text.chars().find(|c| !allowed(c)) {
        return Err(NameError::BadCharacter(bad));
    }
    if text.contains("..") {
        return Err(NameError::Dots);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text).map(|()| Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// The name of a host, safe as a file name, a key and a word on screen (A02).
    HostName
);
name!(
    /// The name of a VM, safe as a file name, a key and a word on screen (A02).
    VmName
);
name!(
    /// The name of an application inside one VM.
    AppName
);

/// What something is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A computer that runs VMs and one holdfast daemon.
    Host(HostName),
    /// The machine as its hypervisor sees it.
    Vm(VmName),
    /// The operating system inside a VM.
    Guest(VmName),
    /// A service inside a guest, as its users see it.
    App(VmName, AppName),
}

impl Subject {
    /// The VM this is about or part of; `None` for a host.
    #[must_use]
    pub const fn vm(&self) -> Option<&VmName> {
        match self {
            Self::Host(_) => None,
            Self::Vm(vm) | Self::Guest(vm) | Self::App(vm, _) => Some(vm),
        }
    }
}

/// As in `vm orders`, `guest orders`, `app orders/postgres`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host {host}"),
            Self::Vm(vm) => write!(f, "vm {vm}"),
            Self::Guest(vm) => write!(f, "guest {vm}"),
            Self::App(vm, app) => write!(f, "app {vm}/{app}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_is_refused_with_its_reason() {
        let refused = |text: &str| text.parse::<VmName>().expect_err(text);
        assert_eq!(refused(""), NameError::Empty);
        assert_eq!(refused("../x"), NameError::BadStart('.'));
        assert_eq!(refused("-rf"), NameError::BadStart('-'));
        assert_eq!(refused("a;reboot"), NameError::BadCharacter(';'));
        assert_eq!(refused("a$(id)"), NameError::BadCharacter('$'));
        assert_eq!(refused("a\nb"), NameError::BadCharacter('\n'));
        assert_eq!(refused("a/../b"), NameError::BadCharacter('/'));
        assert_eq!(refused("a..b"), NameError::Dots);
        assert_eq!(refused("оrders"), NameError::BadStart('о')); // a Cyrillic o
        assert_eq!(refused(&"a".repeat(4096)), NameError::TooLong(4096));
    }

    #[test]
    fn an_ordinary_name_is_kept_as_written() {
        for text in ["orders", "web-7", "db1.example", "0", "a_b"] {
            assert_eq!(text.parse::<VmName>().map(|n| n.to_string()), Ok(text.to_owned()));
        }
    }
}
