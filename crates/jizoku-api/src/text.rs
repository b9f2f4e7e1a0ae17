//! Ids and words as texts in JSON, each in one form that reads back exactly.
//!
//! What it does not know: which field holds what.
//!
//! Invariant: `T::read(&value.write()) == Some(value)` for every value.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;

use jizoku_types::spec::{Durability, OutputMode, PartitionPolicy};
use jizoku_types::{BranchId, CheckpointId, ClusterId, Epoch, NodeId, ServiceId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A value that is a text in JSON.
pub trait Text: Sized {
    /// What the text has to look like, for error messages.
    const FORM: &'static str;
    /// The text.
    fn write(&self) -> String;
    /// The value, if the text is of the right form.
    fn read(text: &str) -> Option<Self>;
}

impl Text for NodeId {
    const FORM: &'static str = "node_ and 64 hex digits";
    fn write(&self) -> String {
        self.to_string()
    }
    fn read(text: &str) -> Option<NodeId> {
        text.parse().ok()
    }
}

impl Text for ClusterId {
    const FORM: &'static str = "cluster_ and 32 hex digits";
    fn write(&self) -> String {
        self.to_string()
    }
    fn read(text: &str) -> Option<ClusterId> {
        read_hex(text.strip_prefix("cluster_")?).map(ClusterId)
    }
}

impl Text for ServiceId {
    const FORM: &'static str = "svc_ and a number";
    fn write(&self) -> String {
        self.to_string()
    }
    fn read(text: &str) -> Option<ServiceId> {
        read_number(text.strip_prefix("svc_")?).map(ServiceId)
    }
}

impl Text for BranchId {
    const FORM: &'static str = "main, or br_ and 32 hex digits";
    fn write(&self) -> String {
        if *self == BranchId::MAIN { "main".to_string() } else { format!("br_{}", hex(&self.0)) }
    }
    fn read(text: &str) -> Option<BranchId> {
        match text.strip_prefix("br_") {
            Some(digits) => read_hex(digits).map(BranchId).filter(|id| *id != BranchId::MAIN),
            None => (text == "main").then_some(BranchId::MAIN),
        }
    }
}

impl Text for Epoch {
    const FORM: &'static str = "e and a number, after a branch and '/' if it isn't main";
    fn write(&self) -> String {
        if self.branch == BranchId::MAIN {
            format!("e{}", self.counter)
        } else {
            format!("{}/e{}", self.branch.write(), self.counter)
        }
    }
    fn read(text: &str) -> Option<Epoch> {
        let (branch, rest) = match text.split_once('/') {
            Some((branch, rest)) => (BranchId::read(branch)?, rest),
            None => (BranchId::MAIN, text),
        };
        let counter = read_number(rest.strip_prefix('e')?)?;
        Some(Epoch { branch, counter })
    }
}

impl Text for CheckpointId {
    const FORM: &'static str = "the counter of an epoch, '.', and a number";
    fn write(&self) -> String {
        format!("{}.{}", self.epoch, self.seq)
    }
    fn read(text: &str) -> Option<CheckpointId> {
        let (epoch, seq) = text.split_once('.')?;
        Some(CheckpointId { epoch: read_number(epoch)?, seq: read_number(seq)? })
    }
}

/// A BLAKE3 hash.
impl Text for [u8; 32] {
    const FORM: &'static str = "64 hex digits";
    fn write(&self) -> String {
        hex(self)
    }
    fn read(text: &str) -> Option<[u8; 32]> {
        read_hex(text)
    }
}

impl Text for OutputMode {
    const FORM: &'static str = "held or free";
    fn write(&self) -> String {
        match self {
            OutputMode::Held => "held",
            OutputMode::Free => "free",
        }
        .to_string()
    }
    fn read(text: &str) -> Option<OutputMode> {
        match text {
            "held" => Some(OutputMode::Held),
            "free" => Some(OutputMode::Free),
            _ => None,
        }
    }
}

impl Text for Durability {
    const FORM: &'static str = "memory or disk";
    fn write(&self) -> String {
        match self {
            Durability::Memory => "memory",
            Durability::Disk => "disk",
        }
        .to_string()
    }
    fn read(text: &str) -> Option<Durability> {
        match text {
            "memory" => Some(Durability::Memory),
            "disk" => Some(Durability::Disk),
            _ => None,
        }
    }
}

impl Text for PartitionPolicy {
    const FORM: &'static str = "stop or continue";
    fn write(&self) -> String {
        match self {
            PartitionPolicy::Stop => "stop",
            PartitionPolicy::Continue => "continue",
        }
        .to_string()
    }
    fn read(text: &str) -> Option<PartitionPolicy> {
        match text {
            "stop" => Some(PartitionPolicy::Stop),
            "continue" => Some(PartitionPolicy::Continue),
            _ => None,
        }
    }
}

/// Bytes as hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes all");
        text
    })
}

fn read_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digits = digits.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| (digit as char).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// Digits only: what `parse` would also take (`+1`) is not what was written.
fn read_number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

pub(crate) fn serialize<T: Text, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&value.write())
}

pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    T::read(&text).ok_or_else(|| D::Error::custom(format!("expected {}", T::FORM)))
}

/// The same for something that may be absent (`null`).
pub(crate) mod option {
    use super::{Deserialize, Deserializer, Serializer, String, Text, format};
    use serde::{Serialize, de::Error as _};

    pub(crate) fn serialize<T: Text, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Text::write).serialize(to)
    }

    pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        let read = |text: String| {
            T::read(&text).ok_or_else(|| D::Error::custom(format!("expected {}", T::FORM)))
        };
        Option::<String>::deserialize(from)?.map(read).transpose()
    }
}

/// The same for lists.
pub(crate) mod list {
    use super::{Deserialize, Deserializer, Serializer, String, Text, Vec, format};
    use serde::de::Error as _;

    pub(crate) fn serialize<T: Text, S: Serializer>(
        values: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(Text::write))
    }

    pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<T>, D::Error> {
        let read = |text: String| {
            T::read(&text).ok_or_else(|| D::Error::custom(format!("expected {}", T::FORM)))
        };
        Vec::<String>::deserialize(from)?.into_iter().map(read).collect()
    }
}

/// The same for sets.
pub(crate) mod set {
    use super::{BTreeSet, Deserializer, Serializer, Text};

    pub(crate) fn serialize<T: Text, S: Serializer>(
        values: &BTreeSet<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(Text::write))
    }

    pub(crate) fn deserialize<'de, T: Text + Ord, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeSet<T>, D::Error> {
        Ok(super::list::deserialize(from)?.into_iter().collect())
    }
}

/// A value that stands alone as a text, for places where `serde(with)` doesn't reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AsText<T>(pub T);

impl<T: Text> Serialize for AsText<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, to)
    }
}

impl<'de, T: Text> Deserialize<'de> for AsText<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<AsText<T>, D::Error> {
        deserialize(from).map(AsText)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Debug;

    #[track_caller]
    fn round<T: Text + PartialEq + Debug>(value: T, text: &str) {
        assert_eq!(value.write(), text);
        assert_eq!(T::read(text), Some(value));
    }

    #[test]
    fn every_text_reads_back() {
        round(NodeId([0xab; 32]), &format!("node_{}", "ab".repeat(32)));
        round(ClusterId([1; 16]), &format!("cluster_{}", "01".repeat(16)));
        round(ServiceId(7), "svc_7");
        round(BranchId::MAIN, "main");
        let branch = BranchId([2; 16]);
        round(branch, &format!("br_{}", "02".repeat(16)));
        round(Epoch::main(3), "e3");
        round(Epoch { branch, counter: 4 }, &format!("br_{}/e4", "02".repeat(16)));
        round(CheckpointId { epoch: 2, seq: 80 }, "2.80");
        round([0xffu8; 32], &"ff".repeat(32));
        round(OutputMode::Held, "held");
        round(OutputMode::Free, "free");
        round(Durability::Disk, "disk");
        round(Durability::Memory, "memory");
        round(PartitionPolicy::Continue, "continue");
        round(PartitionPolicy::Stop, "stop");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "7", "svc_", "svc_+7", "svc_-1", "svc_99999999999999999999"] {
            assert_eq!(ServiceId::read(text), None, "{text}");
        }
        for text in ["e", "3", "main/3", "x/e3", "e+3"] {
            assert_eq!(Epoch::read(text), None, "{text}");
        }
        for text in ["1", "1.", ".1", "1.2.3", "+1.2"] {
            assert_eq!(CheckpointId::read(text), None, "{text}");
        }
        assert_eq!(BranchId::read(&format!("br_{}", "00".repeat(16))), None);
        assert_eq!(ClusterId::read(&format!("cluster_{}", "é".repeat(16))), None);
    }
}
