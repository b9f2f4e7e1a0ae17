//! Types: a small value that can be copied, and the shapes of the records that functions give.
//!
//! What it does not know: values, functions.
//!
//! A type is a base and up to [`WRAPS_MAX`] wraps around it: `[T]` (a list) and `T?` (may be
//! absent).

use core::fmt;

/// How many times a type may be wrapped: `[[int?]]?` is wrapped four times.
pub const WRAPS_MAX: u32 = 4;

/// What a type is, without its wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// `true`, `false`
    Bool,
    /// A whole number of 64 bits.
    Int,
    /// A number with a fraction.
    Float,
    /// A text.
    Str,
    /// `30s`
    Duration,
    /// `64MiB`
    Size,
    /// A record with fixed fields.
    Shape(&'static Shape),
    /// A record of the log, of the event with this number in the script's list.
    Event(u16),
    /// What functions give that give nothing.
    Nothing,
    /// Fits everything: in signatures "any type"; in a script the type of a mistake.
    Any,
}

/// A record with fixed fields.
#[derive(Debug)]
pub struct Shape {
    /// What it is called in messages and docs.
    pub name: &'static str,
    /// Names, types and meanings of its fields, in the order of their values.
    pub fields: &'static [(&'static str, Type, &'static str)],
}

impl PartialEq for Shape {
    fn eq(&self, other: &Shape) -> bool {
        self.name == other.name
    }
}

impl Eq for Shape {}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    base: Base,
    /// Two bits for each wrap, the outermost lowest: 1 list, 2 optional.
    wraps: u8,
}

const LIST: u8 = 1;
const OPTIONAL: u8 = 2;

impl Type {
    /// `bool`
    pub const BOOL: Type = Type::of(Base::Bool);
    /// `int`
    pub const INT: Type = Type::of(Base::Int);
    /// `float`
    pub const FLOAT: Type = Type::of(Base::Float);
    /// `str`
    pub const STR: Type = Type::of(Base::Str);
    /// `duration`
    pub const DURATION: Type = Type::of(Base::Duration);
    /// `size`
    pub const SIZE: Type = Type::of(Base::Size);
    /// No value.
    pub const NOTHING: Type = Type::of(Base::Nothing);
    /// Any type.
    pub const ANY: Type = Type::of(Base::Any);
    /// The type of `none`.
    pub const NONE: Type = Type::ANY.optional();

    /// A type without wraps.
    pub const fn of(base: Base) -> Type {
        Type { base, wraps: 0 }
    }

    /// A record's type.
    pub const fn shape(shape: &'static Shape) -> Type {
        Type::of(Base::Shape(shape))
    }

    /// A list of this. Wraps beyond the limit are lost: ask [`Type::is_full`] before.
    pub const fn list(self) -> Type {
        Type { base: self.base, wraps: self.wraps << 2 | LIST }
    }

    /// This, or nothing. What is optional already stays so.
    pub const fn optional(self) -> Type {
        if self.wraps & 3 == OPTIONAL {
            return self;
        }
        Type { base: self.base, wraps: self.wraps << 2 | OPTIONAL }
    }

    /// Whether it can't be wrapped any more.
    pub const fn is_full(self) -> bool {
        self.wraps >> (2 * WRAPS_MAX - 2) != 0
    }

    /// What it is below its wraps.
    pub fn base(self) -> Base {
        self.base
    }

    /// What it is, if it isn't wrapped.
    pub fn plain(self) -> Option<Base> {
        (self.wraps == 0).then_some(self.base)
    }

    /// The type of the elements, if it is a list.
    pub fn element(self) -> Option<Type> {
        (self.wraps & 3 == LIST).then_some(Type { base: self.base, wraps: self.wraps >> 2 })
    }

    /// The type without "may be absent", if it may be.
    pub fn present(self) -> Option<Type> {
        (self.wraps & 3 == OPTIONAL).then_some(Type { base: self.base, wraps: self.wraps >> 2 })
    }

    /// Whether it is the type of a mistake, which fits everything.
    pub fn is_any(self) -> bool {
        self == Type::ANY
    }

    /// Whether a value of this type may stand where `other` is expected.
    pub fn fits(self, other: Type) -> bool {
        if self == other || self.is_any() || other.is_any() {
            return true;
        }
        if let Some(inner) = other.present() {
            return self.present().unwrap_or(self).fits(inner);
        }
        match (self.element(), other.element()) {
            (Some(mine), Some(theirs)) => mine.fits(theirs),
            // Whole numbers are numbers.
            (None, None) => self == Type::INT && other == Type::FLOAT,
            _ => false,
        }
    }

    /// The type of a value that is of this or of the other type, if there is one.
    pub fn join(self, other: Type) -> Option<Type> {
        if self == Type::NONE || other == Type::NONE {
            let given = if self == Type::NONE { other } else { self };
            return Some(given.optional());
        }
        if other.fits(self) && !self.is_any() {
            return Some(self);
        }
        if self.fits(other) {
            return Some(other);
        }
        let absent = self.present().is_some() || other.present().is_some();
        let (mine, theirs) = (self.present().unwrap_or(self), other.present().unwrap_or(other));
        if !absent || (mine == self && theirs == other) {
            return None;
        }
        mine.join(theirs).map(Type::optional)
    }

    /// The type's text; events are named by `event`.
    pub fn show<'a>(self, event: &'a dyn Fn(u16) -> &'a str) -> impl fmt::Display + 'a {
        Shown { kind: self, event }
    }

    /// The type with this name in scripts.
    pub fn named(name: &str) -> Option<Type> {
        NAMED.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }
}

/// Types that scripts may name.
pub const NAMED: [(&str, Type); 6] = [
    ("bool", Type::BOOL),
    ("int", Type::INT),
    ("float", Type::FLOAT),
    ("str", Type::STR),
    ("duration", Type::DURATION),
    ("size", Type::SIZE),
];

struct Shown<'a> {
    kind: Type,
    event: &'a dyn Fn(u16) -> &'a str,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown { kind, event } = *self;
        if let Some(kind) = kind.element() {
            return write!(f, "[{}]", Shown { kind, event });
        }
        if let Some(kind) = kind.present() {
            if kind.is_any() {
                return f.write_str("none");
            }
            return write!(f, "{}?", Shown { kind, event });
        }
        match kind.base {
            Base::Shape(shape) => f.write_str(shape.name),
            Base::Event(number) => write!(f, "record of `{}`", event(number)),
            Base::Nothing => f.write_str("nothing"),
            Base::Any => f.write_str("any"),
            Base::Bool => f.write_str("bool"),
            Base::Int => f.write_str("int"),
            Base::Float => f.write_str("float"),
            Base::Str => f.write_str("str"),
            Base::Duration => f.write_str("duration"),
            Base::Size => f.write_str("size"),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown { kind: *self, event: &|_| "an event" }.fmt(f)
    }
}

/// What an HTTP server answered.
pub static RESPONSE: Shape = Shape {
    name: "Response",
    fields: &[
        ("status", Type::INT, "the status code: 200, 404, ..."),
        ("body", Type::STR, "the body as text, cut at 1 MiB"),
        ("took", Type::DURATION, "from asking to the last byte"),
    ],
};

/// What a command left behind.
pub static OUTPUT: Shape = Shape {
    name: "Output",
    fields: &[
        ("code", Type::INT, "the exit code; 128 and the signal's number if it was killed"),
        ("out", Type::STR, "what it wrote to standard output, cut at 1 MiB"),
        ("err", Type::STR, "what it wrote to standard error, cut at 1 MiB"),
        ("took", Type::DURATION, "how long it ran"),
    ],
};

/// A service of the cluster.
pub static SERVICE: Shape = Shape {
    name: "Service",
    fields: &[
        ("name", Type::STR, "its name"),
        ("running", Type::BOOL, "whether it shall run, and does"),
        ("state", Type::STR, "what `jizoku status` says"),
        ("node", Type::STR.optional(), "where it is active"),
        ("copies", Type::INT, "nodes that hold its state"),
    ],
};

/// A systemd unit.
pub static UNIT: Shape = Shape {
    name: "Unit",
    fields: &[
        ("name", Type::STR, "its name"),
        ("active", Type::BOOL, "whether it is active"),
        ("state", Type::STR, "its active state and sub-state: `active/running`"),
        ("pid", Type::INT.optional(), "its main process"),
        ("restarts", Type::INT, "how often systemd has started it again"),
    ],
};

/// A process of the host.
pub static PROCESS: Shape = Shape {
    name: "Process",
    fields: &[
        ("pid", Type::INT, "its number"),
        ("name", Type::STR, "its name"),
        ("command", Type::STR, "its command line"),
        ("user", Type::STR, "who it runs as"),
        ("memory", Type::SIZE, "its resident memory"),
        ("age", Type::DURATION, "how long ago it started"),
    ],
};

/// A file.
pub static FILE: Shape = Shape {
    name: "File",
    fields: &[
        ("size", Type::SIZE, "its length"),
        ("folder", Type::BOOL, "whether it is a folder"),
        ("age", Type::DURATION, "time since it was last changed"),
        ("mode", Type::STR, "its permissions: `0644`"),
    ],
};

/// The host's memory.
pub static MEMORY: Shape = Shape {
    name: "Memory",
    fields: &[
        ("total", Type::SIZE, "all of it"),
        ("free", Type::SIZE, "what programs can still get"),
        ("used_pct", Type::FLOAT, "the share that they can't get, in percent"),
    ],
};

/// A file system.
pub static DISK: Shape = Shape {
    name: "Disk",
    fields: &[
        ("total", Type::SIZE, "all of it"),
        ("free", Type::SIZE, "what an ordinary user can still get"),
        ("used_pct", Type::FLOAT, "the share in use, in percent"),
    ],
};

/// A node of the cluster.
pub static NODE: Shape = Shape {
    name: "Node",
    fields: &[
        ("name", Type::STR, "its name"),
        ("reachable", Type::BOOL, "whether this node can reach it"),
        ("labels", Type::STR.list(), "its labels: `role:web`"),
    ],
};

/// Records of the log have these beside the event's own fields.
pub const RECORD_FIELDS: [(&str, Type, &str); 4] = [
    ("host", Type::STR, "the node that emitted it"),
    ("event", Type::STR, "the event's name"),
    ("level", Type::STR, "trace, debug, info, warn, error or fatal"),
    ("time", Type::INT, "when it was first received, in milliseconds of Unix time"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_fits_where() {
        assert!(Type::INT.fits(Type::FLOAT) && !Type::FLOAT.fits(Type::INT));
        assert!(Type::INT.fits(Type::INT.optional()) && !Type::INT.optional().fits(Type::INT));
        assert!(Type::NONE.fits(Type::STR.optional()) && !Type::NONE.fits(Type::STR));
        assert!(Type::INT.list().fits(Type::ANY.list()) && !Type::INT.fits(Type::ANY.list()));
        assert!(Type::INT.list().optional().fits(Type::FLOAT.list().optional()));
        assert!(!Type::shape(&DISK).fits(Type::shape(&MEMORY)));
    }

    #[test]
    fn two_types_join_where_both_fit() {
        assert_eq!(Type::INT.join(Type::FLOAT), Some(Type::FLOAT));
        assert_eq!(Type::NONE.join(Type::STR), Some(Type::STR.optional()));
        assert_eq!(Type::INT.join(Type::FLOAT.optional()), Some(Type::FLOAT.optional()));
        assert_eq!(Type::INT.optional().join(Type::FLOAT), Some(Type::FLOAT.optional()));
        assert_eq!(Type::INT.join(Type::STR), None);
    }

    #[test]
    fn types_print_as_they_are_written() {
        let kind = Type::INT.optional().list().optional();
        assert_eq!(kind.to_string(), "[int?]?");
        assert!(!kind.is_full() && kind.list().is_full());
    }
}
