//! Memory of held states, laid out ahead, so that a restore maps it instead of copying it.
//!
//! A holder's ready image consists of blocks behind pointers. Beside it, and only for speed, its
//! memory lies here as one file of pages that has no name. A restore maps that file privately:
//! that costs the same for any size, and pages are copied when they are first written.
//!
//! What it does not know: what is committed, who holds what; it is told of images.
//!
//! Invariants
//! - What is mapped is the memory of the very image that is restored: before that, the layout is
//!   brought up to date with it by comparing roots, whatever it was told before.
//! - A layout that is mapped is never written again: it is taken out of the table first.
//! - For a service with an instance here nothing is laid out.
//!
//! Limits: [`READY_MAX`] bytes for all services; what does not fit is copied when it is restored.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jizoku_checkpoint::image::{Diff, Image};
use jizoku_types::limits::BLOCK;
use jizoku_types::{ByteCount, ServiceId};

use crate::capture::MEMORY;
use crate::instance::Shared;

/// Most bytes that are laid out for all services of an engine.
pub(crate) const READY_MAX: ByteCount = ByteCount::gib(2);
/// Bytes that are written at once.
const RUN_MAX: usize = 256 << 10;

/// The layouts of all services.
#[derive(Default)]
pub(crate) struct Ready {
    services: Mutex<BTreeMap<ServiceId, Arc<Mutex<Place>>>>,
}

/// What there is of one service.
#[derive(Default)]
struct Place {
    layout: Option<Layout>,
    /// The instance that was started last.
    instance: Weak<Shared>,
}

/// The memory of one image, as a file.
pub(crate) struct Layout {
    file: File,
    image: Image,
}

impl Ready {
    /// Lays out the memory of `image`, or brings what is there up to date with it. Costs as much
    /// as there are differences.
    pub(crate) fn keep(&self, service: ServiceId, image: &Image) {
        let wanted = image.space(MEMORY).map_or(0, |space| space.len());
        let place = self.place(service);
        let others = self.bytes_beside(service);
        let mut place = lock(&place);
        if place.instance.strong_count() > 0 || others + wanted > READY_MAX.0 {
            place.layout = None;
            return;
        }
        let layout = place.layout.take().map_or_else(Layout::new, Ok);
        place.layout = layout.and_then(|layout| layout.following(image)).ok();
    }

    /// What is laid out of a service goes.
    pub(crate) fn forget(&self, service: ServiceId) {
        lock(&self.services).remove(&service);
    }

    /// Notes that an instance begins here, and gives it what was laid out.
    pub(crate) fn take(&self, service: ServiceId, instance: &Arc<Shared>) -> Option<Layout> {
        let place = self.place(service);
        let mut place = lock(&place);
        place.instance = Arc::downgrade(instance);
        place.layout.take()
    }

    fn place(&self, service: ServiceId) -> Arc<Mutex<Place>> {
        let mut services = lock(&self.services);
        // Places of services that have neither layout nor instance any more.
        services.retain(|_, place| {
            Arc::strong_count(place) > 1 || {
                let place = lock(place);
                place.layout.is_some() || place.instance.strong_count() > 0
            }
        });
        Arc::clone(services.entry(service).or_default())
    }

    /// Bytes that are laid out for other services. One that is being laid out now counts as none.
    fn bytes_beside(&self, service: ServiceId) -> u64 {
        let services = lock(&self.services);
        let others = services.iter().filter(|(other, _)| **other != service);
        let bytes = |place: &Arc<Mutex<Place>>| {
            let place = place.try_lock().ok()?;
            Some(place.layout.as_ref()?.len())
        };
        others.filter_map(|(_, place)| bytes(place)).sum()
    }
}

impl Layout {
    fn new() -> io::Result<Layout> {
        // SAFETY: the name is a text that ends with a zero; the result is checked.
        let raw = unsafe { libc::memfd_create(c"jizoku-ready".as_ptr(), libc::MFD_CLOEXEC) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above gave us this descriptor, and nobody else has it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Layout { file: File::from(descriptor), image: Image::empty() })
    }

    /// The memory of `image`.
    #[cfg(test)]
    pub(crate) fn of(image: &Image) -> io::Result<Layout> {
        Layout::new()?.following(image)
    }

    /// Bytes of the memory that is laid out.
    pub(crate) fn len(&self) -> u64 {
        self.image.space(MEMORY).map_or(0, |space| space.len())
    }

    /// With the memory of `image` instead of that of the one before.
    pub(crate) fn following(mut self, image: &Image) -> io::Result<Layout> {
        let before = self.len();
        let diff = Diff::between(&self.image, image);
        self.image = image.clone();
        let after = self.len();
        if after != before {
            // What is cut off is zero if it comes back later.
            self.file.set_len(after)?;
        }
        let mut run = Vec::with_capacity(RUN_MAX);
        let mut start = 0;
        for (index, block) in diff.writes(MEMORY) {
            let at = u64::from(*index) * BLOCK as u64;
            if run.len() == RUN_MAX || at != start + run.len() as u64 {
                self.file.write_all_at(&run, start)?;
                run.clear();
                start = at;
            }
            let bytes: &[u8] = block.as_ref().map_or(&[0; BLOCK], |block| block.bytes());
            run.extend_from_slice(bytes);
        }
        self.file.write_all_at(&run, start)?;
        Ok(self)
    }

    /// Lays the memory over `bytes`, which are as many.
    ///
    /// # Safety
    /// `bytes` must be page-aligned memory of a private mapping, of which nobody else has a
    /// reference, and which is unmapped as a whole in the end.
    pub(crate) unsafe fn map_over(self, bytes: &mut [u8]) -> io::Result<()> {
        assert_eq!(self.len(), bytes.len() as u64, "the memory has the size of the layout");
        // SAFETY: the range is the caller's, as it promises; the file has as many bytes, and is
        // never cut or written again, as this is the only handle to it.
        let mapped = unsafe {
            libc::mmap(
                bytes.as_mut_ptr().cast(),
                bytes.len(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED,
                self.file.as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use jizoku_checkpoint::image::DiffBuilder;

    use super::*;

    /// `base` with these blocks written, and this length.
    fn changed(base: &Image, length: u64, blocks: &[(u32, u8)]) -> Image {
        let mut builder = DiffBuilder::new(Some(base.clone()));
        builder.resize(MEMORY, length);
        for (at, value) in blocks {
            builder.block(MEMORY, *at, &[*value; BLOCK]);
        }
        let mut image = base.clone();
        image.apply_unrooted(&builder.finish()).unwrap();
        image
    }

    fn check(layout: &Layout, image: &Image) {
        let expected = image.read_all(MEMORY).unwrap();
        let mut found = vec![0xff; expected.len()];
        layout.file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == expected);
        assert_eq!(layout.file.metadata().unwrap().len(), expected.len() as u64);
    }

    #[test]
    fn a_layout_follows_every_image() {
        const MIB: u64 = 1 << 20;
        let first = changed(&Image::empty(), MIB, &[(0, 1), (1, 2), (7, 3), (255, 4)]);
        let zeroed = changed(&first, MIB, &[(1, 0), (7, 9)]);
        let longer = changed(&zeroed, 2 * MIB, &[(511, 5), (300, 6)]);
        let many: Vec<(u32, u8)> = (0..256).map(|at| (at, at as u8)).collect();
        let full = changed(&first, MIB, &many);
        let mut layout = Layout::new().unwrap();
        for image in [&first, &zeroed, &longer, &full, &longer, &first, &first, &full] {
            layout = layout.following(image).unwrap();
            check(&layout, image);
        }
    }

    #[test]
    fn a_layout_goes_to_the_instance_and_none_is_made_beside_it() {
        let identity = jizoku_engine::Identity {
            service: ServiceId(1),
            epoch: jizoku_types::Epoch::main(1),
            held: false,
        };
        let sockets = crate::sockets::Sockets::fresh(&identity, 1);
        let instance = Arc::new(Shared::new(sockets));
        let image = changed(&Image::empty(), 1 << 20, &[(3, 3)]);
        let ready = Ready::default();
        ready.keep(ServiceId(1), &image);
        ready.keep(ServiceId(2), &image);
        assert_eq!(ready.bytes_beside(ServiceId(3)), 2 << 20);
        assert!(ready.take(ServiceId(1), &instance).is_some());
        ready.keep(ServiceId(1), &image);
        assert!(ready.take(ServiceId(1), &instance).is_none());
        drop(instance);
        ready.keep(ServiceId(1), &image);
        assert_eq!(ready.bytes_beside(ServiceId(3)), 2 << 20);
        ready.forget(ServiceId(1));
        ready.forget(ServiceId(2));
        assert_eq!(ready.bytes_beside(ServiceId(3)), 0);
    }
}
