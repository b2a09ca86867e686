#!/usr/bin/perl
# Asks the kernel for facilities that no command of Debian 12 can ask for; perl-base is on every Debian.
#
# usage: probe-kernel.pl idmapped-mounts [DIRECTORY] | userfaultfd-wp-async | pagemap-scan
#
# Exit status 0: there. Changes nothing: descriptors and the detached mount end with the process.
use strict;
use warnings;

# Numbers: asm-generic/unistd.h is common to all architectures from 424 on; userfaultfd is older.
my %userfaultfd_number = (x86_64 => 323, aarch64 => 282);
my ($sys_open_tree, $sys_mount_setattr) = (428, 442);

# mount_setattr(2) with MOUNT_ATTR_IDMAP on a detached copy of the directory's mount.
sub idmapped_mounts {
    my $dir = shift // '/';
    pipe(my $ready, my $tell) or return 0;
    my $child = fork() // return 0;
    if ($child == 0) {
        close $ready;
        exec qw(unshare --user sh -c), 'echo >&0; exec sleep 10 </dev/null >/dev/null' if open(STDIN, '>&', $tell);
        exit 1;
    }
    close $tell;
    readline $ready;
    my $works = map_ids($child) && idmap($child, $dir);
    kill 'KILL', $child;
    waitpid $child, 0;
    return $works;
}

sub map_ids {
    my $pid = shift;
    for my $file ("/proc/$pid/uid_map", "/proc/$pid/gid_map") {
        open(my $map, '>', $file) or return 0;
        syswrite($map, "0 65536 65536\n") or return 0;
    }
    return 1;
}

sub idmap {
    my ($pid, $dir) = @_;
    open(my $namespace, '<', "/proc/$pid/ns/user") or return 0;
    # AT_FDCWD, OPEN_TREE_CLONE
    my $tree = syscall($sys_open_tree, -100, $dir, 1);
    return 0 if $tree < 0;
    # struct mount_attr: attr_set = MOUNT_ATTR_IDMAP, attr_clr, propagation, userns_fd; AT_EMPTY_PATH
    my $attributes = pack('Q4', 0x100000, 0, 0, fileno $namespace);
    return syscall($sys_mount_setattr, $tree, my $empty = '', 0x1000, $attributes, 32) == 0;
}

# UFFDIO_API answers with all features; UFFD_FEATURE_WP_ASYNC is bit 15.
sub userfaultfd_wp_async {
    chomp(my $machine = `uname -m`);
    my $number = $userfaultfd_number{$machine} or return 0;
    my $fd = syscall($number, 0x80000);
    return 0 if $fd < 0;
    open(my $handle, '+<&=', $fd) or return 0;
    my $api = pack('Q3', 0xAA, 0, 0);
    defined ioctl($handle, 0xC018AA3F, $api) or return 0;
    return (unpack 'Q3', $api)[1] >> 15 & 1;
}

# PAGEMAP_SCAN over one page, without an output vector.
sub pagemap_scan {
    open(my $pagemap, '<', '/proc/self/pagemap') or return 0;
    my $argument = pack('Q12', 96, 0, 0x400000, 0x401000, 0, 0, 0, 0, 0, 0, 1, 1);
    return defined ioctl($pagemap, 0xC0606610, $argument);
}

my %probes = (
    'idmapped-mounts'      => \&idmapped_mounts,
    'userfaultfd-wp-async' => \&userfaultfd_wp_async,
    'pagemap-scan'         => \&pagemap_scan,
);
my $probe = $probes{shift @ARGV // ''} or die "usage: $0 ", join(' | ', sort keys %probes), "\n";
exit($probe->(@ARGV) ? 0 : 1);
