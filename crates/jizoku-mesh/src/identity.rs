//! A node's Ed25519 key pair, and the file that keeps it.
//!
//! The file is PKCS#8 version 2 in DER, mode 0600. The public key in it is checked against the
//! private one when it is read, so a damaged file is an error and never another node.
//!
//! What it does not know: members, tickets, connections.
//!
//! Invariants
//! - A key file appears under its name whole and flushed, or not at all.
//! - A file that others may read is refused: its key is no secret any more.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use jizoku_types::NodeId;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

/// Longest key file that is read: an Ed25519 key takes 83 bytes.
const FILE_MAX: u64 = 512;

/// What comes before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];

/// Who this node is. Cheap to clone; printing it shows the public key only.
#[derive(Clone)]
pub struct Identity {
    node: NodeId,
    certified: Arc<CertifiedKey>,
    pkcs8: Arc<[u8]>,
}

/// Why there is no identity. Nothing was changed on the disk.
#[derive(Debug)]
pub enum IdentityError {
    /// The file could not be read or written, or is there already.
    Io(io::Error),
    /// Others may read or write the file. `chmod 600` it if nobody did; else make a new node.
    Permissions {
        /// The mode that it has.
        mode: u32,
    },
    /// Not an Ed25519 key in PKCS#8, or damaged.
    Malformed,
    /// The system gave no random bytes.
    Random,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::Io(error) => write!(f, "key file: {error}"),
            IdentityError::Permissions { mode } => {
                write!(f, "key file: mode is {mode:03o}, must be 600")
            }
            IdentityError::Malformed => f.write_str("key file: not an Ed25519 key, or damaged"),
            IdentityError::Random => f.write_str("the system gave no random bytes"),
        }
    }
}

impl std::error::Error for IdentityError {}

impl From<io::Error> for IdentityError {
    fn from(error: io::Error) -> IdentityError {
        IdentityError::Io(error)
    }
}

impl Identity {
    /// A new key pair.
    pub fn generate() -> Result<Identity, IdentityError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| IdentityError::Random)?;
        Identity::from_pkcs8(document.as_ref())
    }

    /// The key pair in `pkcs8` (DER, version 2).
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Identity, IdentityError> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| IdentityError::Malformed)?;
        let public = pair.public_key().as_ref();
        let node = NodeId(public.try_into().map_err(|_| IdentityError::Malformed)?);
        let der = PrivatePkcs8KeyDer::from(pkcs8);
        let signer = rustls::crypto::ring::sign::any_eddsa_type(&der)
            .map_err(|_| IdentityError::Malformed)?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(spki(node))], signer);
        Ok(Identity { node, certified: Arc::new(certified), pkcs8: pkcs8.into() })
    }

    /// Reads the key pair at `path`.
    pub fn load(path: &Path) -> Result<Identity, IdentityError> {
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Permissions { mode });
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
        Identity::from_pkcs8(&bytes)
    }

    /// Writes the key pair to `path`, which must not be there yet.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        if fs::exists(path)? {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
        }
        let fresh = path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(&self.pkcs8)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(())
    }

    /// Reads the key pair at `path`, or makes a new one and writes it there.
    pub fn load_or_create(path: &Path) -> Result<Identity, IdentityError> {
        match Identity::load(path) {
            Err(IdentityError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Identity::generate()?;
                identity.save(path)?;
                Ok(identity)
            }
            result => result,
        }
    }

    /// The node that has this key.
    pub fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.node)
    }
}

/// The SubjectPublicKeyInfo of a node's key: what TLS carries as a raw public key.
pub(crate) fn spki(node: NodeId) -> Vec<u8> {
    [&SPKI_PREFIX[..], &node.0].concat()
}

/// The node whose key this SubjectPublicKeyInfo holds, if it is an Ed25519 key.
pub(crate) fn node_of_spki(spki: &[u8]) -> Option<NodeId> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    key.try_into().ok().map(NodeId)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own that goes when the test ends.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("jizoku-identity-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).expect("a fresh folder");
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_saved_key_reads_back_and_is_secret() {
        let folder = Folder::new("back");
        let path = folder.0.join("key");
        let identity = Identity::load_or_create(&path).expect("created");
        assert_eq!(Identity::load(&path).expect("loaded").node(), identity.node());
        assert_eq!(Identity::load_or_create(&path).expect("loaded").node(), identity.node());
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder.0).expect("readable").count(), 1, "nothing left over");
        assert_eq!(node_of_spki(&spki(identity.node())), Some(identity.node()));
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let folder = Folder::new("over");
        let path = folder.0.join("key");
        let first = Identity::load_or_create(&path).expect("created");
        let other = Identity::generate().expect("generated");
        assert!(matches!(other.save(&path), Err(IdentityError::Io(_))));
        assert_eq!(Identity::load(&path).expect("loaded").node(), first.node());
    }

    #[test]
    fn a_leftover_of_a_crash_is_no_obstacle() {
        let folder = Folder::new("crash");
        let path = folder.0.join("key");
        fs::write(path.with_extension("new"), b"half").expect("written");
        Identity::load_or_create(&path).expect("created");
        Identity::load(&path).expect("loaded");
    }

    #[test]
    fn open_or_damaged_files_are_refused() {
        let folder = Folder::new("bad");
        let path = folder.0.join("key");
        Identity::load_or_create(&path).expect("created");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(Identity::load(&path), Err(IdentityError::Permissions { mode: 0o640 })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");

        let good = fs::read(&path).expect("read");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            // Nothing but the private key's own bytes and its check makes the node.
            if let Ok(other) = Identity::from_pkcs8(&bad) {
                assert_eq!(other.node(), Identity::from_pkcs8(&good).expect("good").node());
            }
            assert!(Identity::from_pkcs8(&good[..at]).is_err());
        }
        assert!(Identity::from_pkcs8(&[]).is_err());
    }
}
