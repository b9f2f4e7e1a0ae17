//! Arguments, environment, clocks, randomness.

use super::errno::{End, Errno, Fail};
use super::guest::{Guest, Pointer};
use crate::host::{Host, Patience};

/// Random bytes of one call at most, so that a call takes a bounded time; more is an error.
const RANDOM_MAX: u32 = 16 << 20;

/// Arguments or environment, as the program gets them.
#[derive(Debug, Default)]
pub(crate) struct Strings(pub(crate) Vec<String>);

impl Strings {
    fn sizes(&self, guest: &mut Guest<'_>, count: Pointer, size: Pointer) -> Result<(), Fail> {
        let bytes: usize = self.0.iter().map(|text| text.len() + 1).sum();
        guest.set_u32(count, self.0.len() as u32)?;
        guest.set_u32(size, u32::try_from(bytes).map_err(|_| Errno::OVERFLOW)?)?;
        Ok(())
    }

    fn get(
        &self,
        guest: &mut Guest<'_>,
        mut pointers: Pointer,
        mut buffer: Pointer,
    ) -> Result<(), Fail> {
        for text in &self.0 {
            guest.set_u32(pointers, buffer)?;
            guest.write(buffer, text.as_bytes())?;
            let end = buffer.checked_add(text.len() as u32).ok_or(Errno::FAULT)?;
            guest.write(end, &[0])?;
            pointers = pointers.checked_add(4).ok_or(Errno::FAULT)?;
            buffer = end.checked_add(1).ok_or(Errno::FAULT)?;
        }
        Ok(())
    }
}

impl Host {
    pub(super) fn args_get(
        &mut self,
        guest: &mut Guest<'_>,
        argv: Pointer,
        buffer: Pointer,
    ) -> Result<(), Fail> {
        self.args.get(guest, argv, buffer)
    }

    pub(super) fn args_sizes_get(
        &mut self,
        guest: &mut Guest<'_>,
        count: Pointer,
        size: Pointer,
    ) -> Result<(), Fail> {
        self.args.sizes(guest, count, size)
    }

    pub(super) fn environ_get(
        &mut self,
        guest: &mut Guest<'_>,
        environ: Pointer,
        buffer: Pointer,
    ) -> Result<(), Fail> {
        self.environment.get(guest, environ, buffer)
    }

    pub(super) fn environ_sizes_get(
        &mut self,
        guest: &mut Guest<'_>,
        count: Pointer,
        size: Pointer,
    ) -> Result<(), Fail> {
        self.environment.sizes(guest, count, size)
    }

    pub(super) fn clock_res_get(
        &mut self,
        guest: &mut Guest<'_>,
        clock: u32,
        resolution: Pointer,
    ) -> Result<(), Fail> {
        let value = self.clocks.resolution(clock)?;
        Ok(guest.set_u64(resolution, value)?)
    }

    pub(super) fn clock_time_get(
        &mut self,
        guest: &mut Guest<'_>,
        clock: u32,
        _precision: u64,
        time: Pointer,
    ) -> Result<(), Fail> {
        let value = self.clocks.read(clock)?;
        Ok(guest.set_u64(time, value)?)
    }

    pub(super) fn random_get(
        &mut self,
        guest: &mut Guest<'_>,
        buffer: Pointer,
        length: u32,
    ) -> Result<(), Fail> {
        if length > RANDOM_MAX {
            return Err(Errno::INVAL.into());
        }
        let slice = guest.slice(buffer, length)?;
        let mut left = guest.bytes_mut(slice);
        while !left.is_empty() {
            // SAFETY: the pointer and the length are those of a slice that may be written to.
            let got = unsafe { libc::getrandom(left.as_mut_ptr().cast(), left.len(), 0) };
            match usize::try_from(got) {
                Ok(got) => left = &mut left[got..],
                // Interrupted by a signal: again.
                Err(_) if std::io::Error::last_os_error().kind() == INTERRUPTED => {}
                Err(_) => return Err(Errno::IO.into()),
            }
        }
        Ok(())
    }

    pub(super) fn proc_raise(&mut self, _: &mut Guest<'_>, signal: u32) -> Result<(), Fail> {
        Err(Fail::End(End::Crashed(format!("it raised signal {signal} on itself"))))
    }

    pub(super) fn sched_yield(&mut self, _: &mut Guest<'_>) -> Result<(), Fail> {
        self.wait(Patience::None, |_| Some(()))?;
        std::thread::yield_now();
        Ok(())
    }
}

const INTERRUPTED: std::io::ErrorKind = std::io::ErrorKind::Interrupted;
