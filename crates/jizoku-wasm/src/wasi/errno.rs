//! Error numbers of WASI preview 1, and how a host call fails.
//!
//! The numbers are those of the standard's `errno` type; only the ones that are returned here.

/// An error number that the program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) u16);

impl Errno {
    pub(crate) const SUCCESS: Errno = Errno(0);
    pub(crate) const AGAIN: Errno = Errno(6);
    pub(crate) const BADF: Errno = Errno(8);
    pub(crate) const CONNRESET: Errno = Errno(15);
    pub(crate) const EXIST: Errno = Errno(20);
    pub(crate) const FAULT: Errno = Errno(21);
    pub(crate) const FBIG: Errno = Errno(22);
    pub(crate) const ILSEQ: Errno = Errno(25);
    pub(crate) const INVAL: Errno = Errno(28);
    pub(crate) const IO: Errno = Errno(29);
    pub(crate) const ISDIR: Errno = Errno(31);
    pub(crate) const MFILE: Errno = Errno(33);
    pub(crate) const NAMETOOLONG: Errno = Errno(37);
    pub(crate) const NOENT: Errno = Errno(44);
    pub(crate) const NOSPC: Errno = Errno(51);
    pub(crate) const NOTDIR: Errno = Errno(54);
    pub(crate) const NOTEMPTY: Errno = Errno(55);
    pub(crate) const NOTSOCK: Errno = Errno(57);
    pub(crate) const NOTSUP: Errno = Errno(58);
    pub(crate) const OVERFLOW: Errno = Errno(61);
    pub(crate) const PERM: Errno = Errno(63);
    pub(crate) const PIPE: Errno = Errno(64);
    pub(crate) const SPIPE: Errno = Errno(70);
}

/// Why a host call does not return normally to the program.
#[derive(Debug)]
pub(crate) enum Fail {
    /// It returns this number; nothing happened.
    Errno(Errno),
    /// The program is being unwound for a capture: the call had no effect and is made again.
    Unwind,
    /// The program ends.
    End(End),
}

/// Why a program ends inside a host call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It called `proc_exit` with this status.
    Status(i32),
    /// It was told to stop.
    Stopped,
    /// It did what it must not.
    Crashed(String),
}

impl From<Errno> for Fail {
    fn from(errno: Errno) -> Fail {
        Fail::Errno(errno)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Status(status) => write!(f, "ended with status {status}"),
            End::Stopped => f.write_str("stopped"),
            End::Crashed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for End {}
