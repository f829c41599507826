# ruff: noqa: E501 - a program a line reads best
"""The escapes: small programs, each with the errors that may stop it.

`W` holds facts about the world outside; `call` makes a system call by its number on x86-64 or
aarch64. An escape is stopped by one of these errors, or returns "contained" after a check of its own.
Those marked `control` do succeed in an unconfined worker, which is checked too; `controls` has that of the
others, or says why there is none.
"""

from dataclasses import dataclass

PRELUDE = r"""
import ctypes, errno, os, resource, signal, socket, struct, subprocess, sys, mmap, fcntl
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(x86_64, aarch64, *arguments):
    number = aarch64 if os.uname().machine == "aarch64" else x86_64
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def run_python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)
def contained(condition):
    return "contained" if condition else "ESCAPED"
"""

GONE = ("FileNotFoundError", "NotADirectoryError", "ProcessLookupError")
DENIED = ("PermissionError",)
READ_ONLY = ("OSError", "PermissionError")  # EROFS has no class of its own
OFFLINE = ("ConnectionRefusedError", "OSError", "PermissionError")
ANY = ("OSError", *GONE, *DENIED)


IN_A_FOLDER = "import tempfile\nwith tempfile.TemporaryDirectory() as d:\n"


@dataclass(frozen=True)
class Escape:
    """An attempt to reach something outside the worker."""

    name: str
    code: str
    stopped_by: tuple[str, ...] = DENIED
    control: bool = False


FILES = [
    Escape("read a file outside", "open(W['secret']).read()", GONE, control=True),
    Escape("see that it is there", "os.stat(W['secret'])", GONE, control=True),
    Escape("list a folder outside", "os.listdir(W['folder'])", GONE, control=True),
    Escape("read it through /proc/self/root", "open('/proc/self/root' + W['secret']).read()", GONE, control=True),
    Escape("climb out by dots", "open('/tmp/' + '../' * 40 + W['secret'][1:]).read()", GONE, control=True),
    Escape("a symbolic link", "os.symlink(W['secret'], '/tmp/link1')\nopen('/tmp/link1').read()", GONE),
    Escape("a link to the root of init", "os.symlink('/proc/1/root' + W['secret'], '/tmp/link2')\nopen('/tmp/link2').read()", (*GONE, *DENIED)),
    Escape("a hard link", "os.link(W['secret'], '/tmp/hard')\nopen('/tmp/hard').read()", GONE),
    Escape("an fd of the root, and upwards", "fd = os.open('/', os.O_RDONLY)\nos.open('../..' + W['secret'], os.O_RDONLY, dir_fd=fd)", GONE, control=True),
    Escape("a child process that reads", "p = run_python('print(open(' + repr(W['secret']) + ').read())')\ncontained('FileNotFoundError' in p.stderr and not p.stdout)"),
    Escape("password hashes", "open('/etc/shadow').read()", GONE),
    Escape("the names of users", "contained(open('/etc/passwd').read().count('\\n') == 1)"),
    Escape("homes", "os.listdir('/home')", GONE),
    Escape("logs and spools", "os.listdir('/var')", GONE),
    Escape("/sys", "os.listdir('/sys')", GONE, control=True),
    Escape("control groups", "os.listdir('/sys/fs/cgroup')", GONE),
    Escape("the kernel's memory", "os.open('/dev/mem', os.O_RDONLY)", GONE),
    Escape("the kernel's log", "os.open('/dev/kmsg', os.O_RDONLY)", GONE),
    Escape("disks", "contained(set(os.listdir('/dev')) <= {'null','zero','full','random','urandom','shm','pts','ptmx','fd','stdin','stdout','stderr'})"),
    Escape("a device node of one's own", "os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0))\nos.open('/tmp/disk', os.O_RDONLY)", ANY),
    Escape("a terminal", "os.open('/dev/tty', os.O_RDWR)", ANY),
    Escape("write to a file outside", "open(W['secret'], 'a').write('x')", GONE),
    Escape("make a file outside", "open(W['folder'] + '/new', 'w').write('x')", GONE),
    Escape("remove a file outside", "os.unlink(W['secret'])", GONE),
    Escape("move a file out", "open('/tmp/mine', 'w').write('x')\nos.rename('/tmp/mine', W['folder'] + '/mine')", GONE),
    Escape("change a mode outside", "os.chmod(W['secret'], 0)", GONE),
    Escape("truncate outside", "os.truncate(W['secret'], 0)", GONE),
    Escape("write among Python's own", "open(os.__file__, 'a').write('x')", READ_ONLY),
    Escape("write among the packages", "open(sys.prefix + '/planted.py', 'w')", READ_ONLY),
    Escape("write to the worker's own code", "import pyrepl3_worker\nopen(pyrepl3_worker.__file__, 'a')", READ_ONLY),
    Escape("write to programs", "open('/usr/bin/env', 'r+b')", READ_ONLY),
    Escape("make a folder in the root", "os.mkdir('/planted')", READ_ONLY),
    Escape("rewrite /etc/passwd", "open('/etc/passwd', 'a').write('root2::0:0::/:/bin/sh')", READ_ONLY),
    Escape("make a read-only place writable", "os.chmod(sys.prefix, 0o777)", READ_ONLY),
]  # fmt: skip

MOUNTS = [
    Escape("mount a file system", "call(165, 40, b'x', b'/tmp', b'tmpfs', 0, None)"),
    Escape("bind the root", "call(165, 40, b'/', b'/tmp', None, 4096 | 16384, None)"),
    Escape("remount writable", "call(165, 40, None, b'/', None, 32 | 4096, None)"),
    Escape("unmount what covers", "call(166, 39, b'/tmp', 2)"),
    Escape("the new calls for mounts", "os.close(call(428, 428, -100, b'/', 0x8001))"),
    Escape("a new file system, the new way", "call(430, 430, b'proc', 0)"),
    Escape("clear read-only", "call(442, 442, -100, b'/', 0, struct.pack('QQQQ', 0, 1, 0, 0), 32)"),
    Escape("pivot_root", "call(155, 41, b'/tmp', b'/tmp')"),
    Escape("chroot, and out of it", "os.makedirs('/tmp/jail', exist_ok=True)\nos.chroot('/tmp/jail')"),
    Escape("a user namespace", "os.unshare(os.CLONE_NEWUSER)", ANY),
    Escape("a network namespace", "os.unshare(os.CLONE_NEWNET)"),
    Escape("a mount namespace, in a child", "p = run_python('import os; os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNS)')\ncontained('PermissionError' in p.stderr)"),
    Escape("clone with new namespaces", "call(56, 220, 0x10000000 | 17, 0, 0, 0, 0) or os._exit(0)"),
    Escape("clone3, whose flags no filter sees", "call(435, 435, struct.pack('Q' * 11, 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0), 88) or os._exit(0)", ("OSError",)),
    Escape("the namespace of init", "os.setns(os.open('/proc/1/ns/mnt', os.O_RDONLY))", ANY),
    Escape("a file handle", "call(303, 264, -100, b'/usr', ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128)), ctypes.byref(ctypes.c_int()), 0)"),
    Escape("open by handle", "call(304, 265, 3, struct.pack('Iiqq', 8, 1, 2, 0), 0)"),
    Escape("one's own uid map", "open('/proc/self/uid_map', 'w').write('0 0 4294967295')", READ_ONLY),
    Escape("the core pattern", "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x')", READ_ONLY),
    Escape("the magic key", "open('/proc/sysrq-trigger', 'w').write('h')", (*READ_ONLY, *GONE)),
    Escape("the number of processes", "open('/proc/sys/kernel/pid_max', 'w').write('4000000')", READ_ONLY),
    Escape("the machine's timers", "contained(not os.path.exists('/proc/timer_list') or open('/proc/timer_list').read() == '')"),
    Escape("the kernel's caches", "contained(open('/proc/slabinfo').read() == '')"),
    Escape("the kernel's addresses", "contained(open('/proc/kallsyms').read() == '' and open('/proc/vmallocinfo').read() == '')"),
    Escape("the user's keys by their names", "contained(open('/proc/keys').read() == '')"),
    Escape("when keys are typed", "contained(open('/proc/interrupts').read() == '')"),
    Escape("the kernel's messages by /proc", "contained(open('/proc/kmsg').read() == '')"),
    Escape("the machine's devices", "contained(not os.path.exists('/proc/acpi') or os.listdir('/proc/acpi') == [])"),
    Escape("fresh /proc by symbolic link", "os.symlink('/proc/1/environ', '/tmp/e')\nopen('/tmp/e').read()", (*DENIED, *GONE)),
]  # fmt: skip

PROCESSES = [
    Escape("a child of the keeper", "call(56, 220, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0) or os._exit(0)"),
    Escape("the parent's environment", "open(f'/proc/{W[\"parent\"]}/environ').read()", GONE, control=True),
    Escape("the parent's memory", "open(f'/proc/{W[\"parent\"]}/mem', 'rb').close()", GONE),
    Escape("the parent's fds", "os.listdir(f'/proc/{W[\"parent\"]}/fd')", GONE, control=True),
    Escape("the parent's root", "os.listdir(f'/proc/{W[\"parent\"]}/root')", GONE, control=True),
    Escape("the parent's folder", "os.readlink(f'/proc/{W[\"parent\"]}/cwd')", GONE, control=True),
    Escape("the parent's command line", "open(f'/proc/{W[\"parent\"]}/cmdline').read()", GONE, control=True),
    Escape("a sibling's environment", "open(f'/proc/{W[\"victim\"]}/environ').read()", GONE, control=True),
    Escape("who else is there", "contained(all(int(p) < 400 for p in os.listdir('/proc') if p.isdigit()) and os.getppid() == 0)"),
    Escape("the memory of init", "open('/proc/1/mem', 'rb')", DENIED),
    Escape("the environment of init", "open('/proc/1/environ').read()", DENIED),
    Escape("the fds of init", "contained(os.listdir('/proc/1/fd') == [])", DENIED),
    Escape("ptrace a sibling", "call(101, 117, 0x4206, W['victim'], 0, 0)", (*DENIED, *GONE), control=True),
    Escape("ptrace the parent", "call(101, 117, 16, W['parent'], 0, 0)", (*DENIED, *GONE)),
    Escape("ptrace init", "call(101, 117, 0x4206, 1, 0, 0)"),
    Escape("read a process's memory", "call(310, 270, W['victim'], None, 0, None, 0, 0)", (*DENIED, *GONE), control=True),
    Escape("write a process's memory", "call(311, 271, W['victim'], None, 0, None, 0, 0)", (*DENIED, *GONE), control=True),
    Escape("signal a sibling", "os.kill(W['victim'], signal.SIGTERM)", GONE),
    Escape("see a sibling by a null signal", "os.kill(W['victim'], 0)", GONE, control=True),
    Escape("stop the parent", "os.kill(W['parent'], signal.SIGSTOP)", GONE),
    Escape("signal the parent's group", "os.killpg(W['parent'], signal.SIGTERM)", GONE),
    Escape("signal everybody", "os.kill(-1, signal.SIGUSR1)", GONE),
    Escape("signal one's parent", "os.kill(os.getppid() or W['parent'], signal.SIGTERM) if os.getppid() else os.kill(W['parent'], 15)", GONE),
    Escape("kill init", "os.kill(1, signal.SIGKILL)\ncontained(open('/proc/1/stat').read().split()[2] in 'SR')"),
    Escape("a handle of a sibling", "os.pidfd_open(W['victim'])", GONE, control=True),
    Escape("a handle's fds", "call(438, 438, os.pidfd_open(1), 0, 0)", DENIED),
    Escape("slow a sibling down", "os.setpriority(os.PRIO_PROCESS, W['victim'], 19)", GONE),
    Escape("slow all of the user down", "os.setpriority(os.PRIO_USER, os.getuid(), os.getpriority(os.PRIO_PROCESS, 0) + 1)\nos.getpriority(os.PRIO_PROCESS, W['victim'])", (*DENIED, *GONE)),
    Escape("pin a sibling", "os.sched_setaffinity(W['victim'], {0})", GONE, control=True),
    Escape("limits of a sibling", "resource.prlimit(W['victim'], resource.RLIMIT_NOFILE, (3, 3))", GONE),
    Escape("compare processes", "call(312, 272, 1, os.getpid(), 0, 0, 0)"),
    Escape("performance counters", "os.close(call(298, 241, struct.pack('II', 1, 112) + bytes(104), 0, -1, -1, 0))"),
]  # fmt: skip

NETWORK = [
    Escape("TCP to this machine", "socket.create_connection(('127.0.0.1', W['tcp']), 5)", OFFLINE, control=True),
    Escape("TCP to another", "socket.create_connection(('192.0.2.1', 80), 5)", OFFLINE),
    Escape("TCP by IPv6", "socket.create_connection(('2001:db8::1', 80), 5)", OFFLINE),
    Escape("UDP to this machine", "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.connect(('127.0.0.1', W['udp']))\ns.send(b'x')\ns.settimeout(5)\ns.recv(1)", OFFLINE),
    Escape("UDP to another", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))", OFFLINE),
    Escape("ask for a name", "socket.getaddrinfo('example.com', 80)", ("gaierror",)),
    Escape("a unix socket", "socket.socket(socket.AF_UNIX).connect(W['unix'])", GONE, control=True),
    Escape("an abstract socket", "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.sendto(b'x', W['abstract'])", OFFLINE),
    Escape("a pair that sends elsewhere", "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', W['abstract'])", OFFLINE),
    Escape("a raw socket", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
    Escape("a packet socket", "socket.socket(17, socket.SOCK_RAW)"),
    Escape("netlink", "socket.socket(16, socket.SOCK_RAW, 0)", control=True),
    Escape("vsock, to the host of a virtual machine", "socket.socket(40, socket.SOCK_STREAM)"),
    Escape("the kernel's cryptography", "socket.socket(38, 5, 0)"),
    Escape("other interfaces", "contained({line.split(':')[0].strip() for line in open('/proc/self/net/dev') if ':' in line} == {'lo'})"),
    Escape("io_uring, which goes round filters", "call(425, 425, 1, ctypes.create_string_buffer(120))"),
    Escape("change the network", "fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, struct.pack('16sH14x', b'lo', 0))"),
]  # fmt: skip

PRIVILEGES = [
    Escape("be root", "os.setuid(0) if os.getuid() else os.setuid(1)", ANY),
    Escape("be of another group", "os.setgid(54321)", ANY),
    Escape("have more groups", "os.setgroups([0, 1, 2])", DENIED),
    Escape("have capabilities again", "hdr = struct.pack('Ii', 0x20080522, 0)\ncall(126, 91, hdr, struct.pack('IIIIII', 1 << 21, 1 << 21, 0, 0, 0, 0))", DENIED),
    Escape("capabilities by executing", "p = subprocess.run(['grep', 'CapEff', '/proc/self/status'], capture_output=True, text=True)\ncontained(p.stdout.split() == ['CapEff:', '0000000000000000'])"),
    Escape("no set-user-id programs", "contained(not [m for m in open('/proc/self/mountinfo') if ' nosuid' not in m.split(' - ')[0].replace(',', ' ') ])"),
    Escape("a set-user-id program of one's own", "import shutil\nshutil.copy('/usr/bin/env', '/tmp/suid')\nos.chmod('/tmp/suid', 0o6755)\np = subprocess.run(['/tmp/suid', 'grep', '-E', 'NoNewPrivs|CapEff', '/proc/self/status'], capture_output=True, text=True)\ncontained(p.stdout.split() == ['CapEff:', '0000000000000000', 'NoNewPrivs:', '1'])"),
    Escape("new privileges allowed again", "libc.prctl(38, 0, 0, 0, 0) == 0 or (_ for _ in ()).throw(OSError(ctypes.get_errno(), 'refused'))", ("OSError",)),
    Escape("a filter that allows more", "class F(ctypes.Structure): _fields_ = (('n', ctypes.c_ushort), ('p', ctypes.c_char_p))\nassert libc.prctl(22, 2, ctypes.byref(F(1, struct.pack('HBBI', 6, 0, 0, 0x7FFF0000)))) == 0\nos.unshare(os.CLONE_NEWNET)"),
    Escape("the old set of calls (x32)", "libc.syscall(ctypes.c_long(0x40000000 + 101), 0, 0, 0, 0) == 0 or (_ for _ in ()).throw(OSError(ctypes.get_errno(), 'refused'))", ("OSError",)),
    Escape("a call of no known number", "call(600, 600)", ("OSError",)),
    Escape("the host's name", "socket.sethostname('mine')"),
    Escape("the clock", "call(227, 112, 0, struct.pack('qq', 0, 0))"),
    Escape("reboot", "call(169, 142, 0xfee1dead, 672274793, 0, None)"),
    Escape("a kernel module", "call(175, 105, b'', 0, b'')"),
    Escape("another kernel", "call(246, 104, 0, 0, None, 0)"),
    Escape("a program in the kernel (bpf)", "call(321, 280, 0, bytes(64), 64)"),
    Escape("faults handled by oneself", "call(323, 282, 0)"),
    Escape("the user's keys", "call(250, 219, 0, -3, 1)"),
    Escape("a key for others", "call(248, 217, b'user', b'x', b'y', 1, -4)"),
    Escape("raise a limit", "soft, hard = resource.getrlimit(resource.RLIMIT_CORE)\nresource.setrlimit(resource.RLIMIT_CORE, (hard + 1, hard + 1))", ("ValueError",)),
    Escape("type into a terminal", "a, b = os.openpty()\nfcntl.ioctl(b, 0x5412, b'x')"),
    Escape("paste into a console", "a, b = os.openpty()\nfcntl.ioctl(b, 0x541C, b'\\x03')"),
    Escape("a program that is no file", "fd = os.memfd_create('x', 0)\nos.write(fd, open('/bin/cat', 'rb').read())\np = subprocess.run([f'/proc/self/fd/{fd}', W['secret']], pass_fds=[fd], capture_output=True, text=True)\ncontained('No such file' in p.stderr and not p.stdout)"),
    Escape("a loader that executes for us", "import glob\nld = (glob.glob('/lib*/ld-linux*') + glob.glob('/lib/*/ld-linux*'))[0]\np = subprocess.run([ld, '/bin/cat', W['secret']], capture_output=True, text=True)\ncontained('No such file' in p.stderr)"),
    Escape("fds of the parent's", "targets = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if os.path.islink(f'/proc/self/fd/{fd}')]\ncontained(targets and not [t for t in targets if t[0] == '/' and t != '/' and not t.startswith(('/dev/null', '/dev/urandom', '/dev/pt', '/proc/', '/memfd:'))])"),
    Escape("secrets in the environment", "contained(not [v for v in os.environ.values() if 'secret of the parent' in v] and b'secret of the parent' not in open('/proc/self/environ', 'rb').read())"),
]  # fmt: skip

CALLS = [
    Escape("a set-user-id bit", IN_A_FOLDER + "    open(d + '/x', 'w').close()\n    os.chmod(d + '/x', 0o4755)", control=True),
    Escape("a set-group-id bit", IN_A_FOLDER + "    open(d + '/x', 'w').close()\n    os.chmod(d + '/x', 0o2755)", control=True),
    Escape("a set-user-id bit by its fd", IN_A_FOLDER + "    os.fchmod(os.open(d + '/x', os.O_CREAT | os.O_WRONLY), 0o4755)", control=True),
    Escape("a set-user-id bit by a newer call", IN_A_FOLDER + "    open(d + '/x', 'w').close()\n    call(452, 452, -100, d.encode() + b'/x', 0o4755, 0)"),
    Escape("a file that begins with one", IN_A_FOLDER + "    os.close(os.open(d + '/x', os.O_CREAT | os.O_WRONLY, 0o4755))", control=True),
    Escape("a file without a name that begins with one", IN_A_FOLDER + "    os.close(os.open(d, os.O_TMPFILE | os.O_WRONLY, 0o4755))"),
    Escape("a node that begins with one", IN_A_FOLDER + "    os.mknod(d + '/x', 0o104755)", control=True),
    Escape("a folder that begins with one", IN_A_FOLDER + "    os.mkdir(d + '/x', 0o6755)\n    mode = os.stat(d + '/x').st_mode\ncontained(not mode & 0o6000)"),
    Escape("a lease", IN_A_FOLDER + "    f = os.open(d + '/x', os.O_CREAT | os.O_RDONLY)\n    fcntl.fcntl(f, 1024, fcntl.F_RDLCK)\n    os.close(f)", control=True),
    Escape("news of a folder", IN_A_FOLDER + "    f = os.open(d, os.O_RDONLY)\n    fcntl.fcntl(f, 1026, 2)\n    os.close(f)", control=True),
    Escape("connect by sending", "with socket.socket() as s: s.sendto(b'x', 0x20000000, ('127.0.0.1', W['tcp']))", ("OSError",), control=True),
    Escape("connect by sending a message", "with socket.socket() as s: s.sendmsg([b'x'], [], 0x20000000, ('127.0.0.1', W['tcp']))", ("OSError",), control=True),
    Escape("shared memory that stays (SysV)", "i = call(29, 194, 0, 4096, 0o1600)\ncall(31, 195, i, 0, 0)", ("OSError",), control=True),
    Escape("semaphores that stay (SysV)", "i = call(64, 190, 0, 1, 0o1600)\ncall(66, 191, i, 0, 0, 0)", ("OSError",), control=True),
    Escape("messages that stay (SysV)", "i = call(68, 186, 0, 0o1600)\ncall(71, 187, i, 0, 0)", ("OSError",), control=True),
    Escape("messages that stay (POSIX)", "os.close(call(240, 180, b'pyrepl3-escape', 0o102, 0o600, None))\ncall(241, 181, b'pyrepl3-escape')", ("OSError",), control=True),
    Escape("flags that no filter sees", "os.close(call(437, 437, -100, b'/tmp', bytes(24), 24))", ("OSError",), control=True),
    Escape("memory that not even the kernel sees", "os.close(call(447, 447, 0))", ("OSError",)),
    Escape("another personality", "call(135, 92, 0x40000)\ncall(135, 92, 0)", control=True),
    Escape("asynchronous input and output", "c = ctypes.c_ulong()\ncall(206, 0, 1, ctypes.byref(c))\ncall(207, 1, c.value)", ("OSError",), control=True),
    Escape("pages given away", "r, w = os.pipe()\nb = ctypes.create_string_buffer(9)\nv = (ctypes.c_ulong * 2)(ctypes.addressof(b), 9)\ncall(278, 75, w, ctypes.byref(v), 1, 0)", ("OSError",), control=True),
    Escape("memory of a device", "os.close(os.open('/dev/zero', os.O_RDWR))", control=True),
    Escape("the user's watches of files", "f = [libc.inotify_init1(0) for _ in range(20)]\n[os.close(n) for n in f if n >= 0]\nif -1 in f: raise OSError(24, 'refused')", ("OSError",), control=True),
    Escape("the machine's terminals", "t = []\ntry:\n    for _ in range(70): t += os.openpty()\nfinally:\n    for fd in t: os.close(fd)", ("OSError",), control=True),
    Escape("the user's timers", "contained(resource.getrlimit(resource.RLIMIT_SIGPENDING)[1] <= 1024)"),
]  # fmt: skip

ESCAPES = [*FILES, *MOUNTS, *PROCESSES, *NETWORK, *PRIVILEGES, *CALLS]
