//! The pause program and the image it comes in: what holds a pod's namespaces open.
//!
//! It is brought along because nothing may be pulled before a pod can start, and it is a static ELF file of 201 bytes
//! written by hand because the alternatives cost more than they give: the agent's own binary would be a layer of tens
//! of megabytes imported on every node, and a second `no_std` crate needs its own linker flags on every build. The
//! program waits for signals with everything blocked (so that process 1's special rules don't discard them), ends on
//! SIGTERM and SIGINT, and reaps children on SIGCHLD, which matters where a pod shares its process namespace.

use sha2::{Digest, Sha256};

/// Where the file is loaded: any page-aligned address above the zero page does.
const BASE: u64 = 0x40_0000;

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 0x3e;

/// `rt_sigprocmask(SIG_BLOCK, &all, NULL, 8)`, then forever `rt_sigtimedwait(&all, NULL, NULL, 8)`.
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[
    0x6a, 0xff, // push -1                     the full signal set, on the stack
    0x31, 0xff, // xor edi, edi                SIG_BLOCK
    0x48, 0x89, 0xe6, // mov rsi, rsp
    0x31, 0xd2, // xor edx, edx
    0x6a, 0x08, 0x41, 0x5a, // push 8; pop r10
    0x6a, 0x0e, 0x58, // push 14; pop rax      rt_sigprocmask
    0x0f, 0x05, // syscall
    // wait:
    0x48, 0x8d, 0x3c, 0x24, // lea rdi, [rsp]
    0x31, 0xf6, // xor esi, esi
    0x31, 0xd2, // xor edx, edx
    0x6a, 0x08, 0x41, 0x5a, // push 8; pop r10
    0xb8, 0x80, 0x00, 0x00, 0x00, // mov eax, 128   rt_sigtimedwait
    0x0f, 0x05, // syscall
    0x83, 0xf8, 0x02, 0x74, 0x20, // cmp eax, SIGINT; je leave
    0x83, 0xf8, 0x0f, 0x74, 0x1b, // cmp eax, SIGTERM; je leave
    0x83, 0xf8, 0x11, 0x75, 0xde, // cmp eax, SIGCHLD; jne wait
    // reap:
    0x6a, 0xff, 0x5f, // push -1; pop rdi
    0x31, 0xf6, // xor esi, esi
    0x6a, 0x01, 0x5a, // push 1; pop rdx       WNOHANG
    0x45, 0x31, 0xd2, // xor r10d, r10d
    0x6a, 0x3d, 0x58, // push 61; pop rax      wait4
    0x0f, 0x05, // syscall
    0x85, 0xc0, 0x7f, 0xec, // test eax, eax; jg reap
    0xeb, 0xc8, // jmp wait
    // leave:
    0x31, 0xff, // xor edi, edi
    0x6a, 0x3c, 0x58, // push 60; pop rax      exit
    0x0f, 0x05, // syscall
];

/// The program: an ELF header, one program header, the code.
pub fn program() -> Vec<u8> {
    let size = (64 + 56 + CODE.len()) as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend(2u16.to_le_bytes()); // executable
    elf.extend(MACHINE.to_le_bytes());
    elf.extend(1u32.to_le_bytes());
    elf.extend((BASE + 120).to_le_bytes()); // entry
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend(0u64.to_le_bytes()); // no section headers
    elf.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes()); // PT_LOAD
    elf.extend(5u32.to_le_bytes()); // read and execute
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(CODE);
    elf
}

/// The image's tag carries the program's fingerprint: another version of the agent brings another image.
pub fn tag() -> String {
    hex::encode(&Sha256::digest(program())[..6])
}

pub const REPOSITORY: &str = "longshore/pause";

pub fn image() -> String {
    format!("{REPOSITORY}:{}", tag())
}

/// A tar archive with `/pause` and the mount points that Docker would otherwise make.
pub fn archive() -> Vec<u8> {
    let mut tar = Vec::new();
    entry(&mut tar, "pause", &program());
    tar.extend([0; 1024]);
    tar
}

/// One file in the ustar format.
fn entry(tar: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    let mut put = |at: usize, text: String| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(100, "0000755\0".into());
    put(108, "0000000\0".into());
    put(116, "0000000\0".into());
    put(124, format!("{:011o}\0", content.len()));
    put(136, format!("{:011o}\0", 0));
    put(148, " ".repeat(8));
    put(156, "0".into());
    put(257, "ustar\x0000".into());
    let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend(header);
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    fn write_program() -> tempfile::TempPath {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&program()).unwrap();
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
        file.into_temp_path()
    }

    /// In `rt_sigtimedwait`, which is number 128.
    fn waits(pid: u32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|s| s.starts_with("128 "))
    }

    #[test]
    fn pause_waits_and_ends_cleanly_on_sigterm_and_sigint() {
        let path = write_program();
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut child = std::process::Command::new(&*path).spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            while !waits(child.id()) {
                assert!(child.try_wait().unwrap().is_none(), "pause ended by itself");
                assert!(Instant::now() < deadline, "pause never came to wait");
                std::thread::yield_now();
            }
            let pid = Pid::from_raw(child.id() as i32);
            kill(pid, Signal::SIGHUP).unwrap();
            kill(pid, Signal::SIGCHLD).unwrap();
            kill(pid, signal).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
        }
    }

    #[test]
    fn the_archive_is_read_by_tar() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&archive()).unwrap();
        let out = std::process::Command::new("tar").arg("tvf").arg(file.path()).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(
            out.status.success() && text.contains("-rwxr-xr-x") && text.contains(" 201 ") && text.contains("pause"),
            "{text}"
        );
    }
}
