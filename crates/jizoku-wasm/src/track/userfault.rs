//! Written pages, noted by the kernel: userfaultfd in WP_ASYNC mode and PAGEMAP_SCAN.
//!
//! Needs Linux 6.7 and pages of 4 KiB, and no privilege: only faults of user mode are handled, and
//! they are resolved by the kernel itself; nobody reads the descriptor.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::PAGE;

const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_REGISTER_MODE_WP: u64 = 2;
const UFFDIO_WRITEPROTECT: u64 = 0xc018_aa06;
const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1;
const PAGEMAP_SCAN: u64 = 0xc060_6610;
const PM_SCAN_WP_MATCHING: u64 = 1;
const PM_SCAN_CHECK_WPASYNC: u64 = 2;
const PAGE_IS_WRITTEN: u64 = 2;
/// Ranges that one call reports at most; the call is repeated for more.
const REGIONS: usize = 512;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Protect {
    start: u64,
    length: u64,
    mode: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_length: u64,
    pages_max: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// One registered mapping.
pub(super) struct Userfault {
    /// Kept open: closing it ends the tracking.
    descriptor: OwnedFd,
    pagemap: File,
    base: u64,
    regions: Box<[Region; REGIONS]>,
}

impl Userfault {
    /// Starts to track `length` bytes at `base`, both multiples of a page. The mapping may have
    /// parts that are not accessible yet.
    pub(super) fn register(base: *const u8, length: usize) -> io::Result<Userfault> {
        // SAFETY: no memory is passed.
        if unsafe { libc::sysconf(libc::_SC_PAGESIZE) } != PAGE as libc::c_long {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // SAFETY: no memory is passed; the result is checked.
        let raw =
            unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | UFFD_USER_MODE_ONLY) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above gave us this descriptor, and nobody else has it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw as libc::c_int) };
        let mut api = Api { api: UFFD_API, features: UFFD_FEATURE_WP_ASYNC, ioctls: 0 };
        control(&descriptor, UFFDIO_API, &mut api)?;
        let base = base as u64;
        let mode = UFFDIO_REGISTER_MODE_WP;
        let mut register = Register { start: base, length: length as u64, mode, ioctls: 0 };
        control(&descriptor, UFFDIO_REGISTER, &mut register)?;
        Ok(Userfault {
            descriptor,
            pagemap: File::open("/proc/self/pagemap")?,
            base,
            regions: Box::new([Region::default(); REGIONS]),
        })
    }

    /// Tracks the first `length` bytes anew, without a report; pages that are not there yet too.
    pub(super) fn protect(&mut self, length: usize) -> io::Result<()> {
        let mode = UFFDIO_WRITEPROTECT_MODE_WP;
        let mut protect = Protect { start: self.base, length: length as u64, mode };
        control(&self.descriptor, UFFDIO_WRITEPROTECT, &mut protect).map(drop)
    }

    /// Reports the pages of the first `length` bytes that were written since the last call, in
    /// ascending order, and tracks them anew.
    pub(super) fn take_written(
        &mut self,
        length: usize,
        mut written: impl FnMut(Range<u32>),
    ) -> io::Result<()> {
        let end = self.base + length as u64;
        let mut start = self.base;
        while start < end {
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                flags: PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
                start,
                end,
                walk_end: 0,
                regions: self.regions.as_mut_ptr() as u64,
                regions_length: REGIONS as u64,
                pages_max: 0,
                category_inverted: 0,
                category_mask: PAGE_IS_WRITTEN,
                category_anyof_mask: 0,
                return_mask: PAGE_IS_WRITTEN,
            };
            let count = control(&self.pagemap, PAGEMAP_SCAN, &mut scan)?;
            for region in &self.regions[..count] {
                let page = |address: u64| ((address - self.base) / PAGE as u64) as u32;
                written(page(region.start)..page(region.end));
            }
            if scan.walk_end <= start {
                return Err(io::ErrorKind::InvalidData.into());
            }
            start = scan.walk_end;
        }
        Ok(())
    }
}

/// Whether a write to a mapping of our own is noted, and only that one.
pub(super) fn works() -> bool {
    const PAGES: usize = 4;
    // SAFETY: a new private mapping; the kernel chooses where.
    let mapping = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGES * PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapping == libc::MAP_FAILED {
        return false;
    }
    let bytes = mapping.cast::<u8>();
    let tried = || -> io::Result<Vec<u32>> {
        let mut userfault = Userfault::register(bytes, PAGES * PAGE)?;
        for page in 0..PAGES {
            // SAFETY: within the mapping made above, which nobody else knows.
            unsafe { bytes.add(page * PAGE).write_volatile(1) };
        }
        userfault.take_written(PAGES * PAGE, |_| {})?;
        // SAFETY: as above.
        unsafe { bytes.add(2 * PAGE).write_volatile(2) };
        let mut written = Vec::new();
        userfault.take_written(PAGES * PAGE, |pages| written.extend(pages))?;
        Ok(written)
    };
    let works = tried().is_ok_and(|written| written == [2]);
    // SAFETY: the mapping made above; nothing points into it any more.
    unsafe { libc::munmap(mapping, PAGES * PAGE) };
    works
}

/// Calls `ioctl` with a structure that belongs to the request. The result, if not negative.
fn control<T>(descriptor: &impl AsRawFd, request: u64, argument: &mut T) -> io::Result<usize> {
    // SAFETY: each caller passes the structure that `request` is defined for; the kernel writes
    // only into it and, for PAGEMAP_SCAN, into the region buffer that it names with its length.
    let result = unsafe {
        libc::ioctl(descriptor.as_raw_fd(), request as libc::Ioctl, std::ptr::from_mut(argument))
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
