//! The commands, one file each: what they take, what they say.

pub mod check;
pub mod init;

/// What a command says, and the exit code it ends with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub out: String,
    /// For standard error.
    pub err: String,
    /// 0 fine, 1 failed, 2 wrong usage or configuration, 3 not healthy.
    pub code: u8,
}
