/// What the kernel gives to who serves many: a mapping server, a relay.
struct KernelFacts: Hashable, Sendable {
    enum Feature: Hashable, Sendable {
        case there
        /// In the kernel's words.
        case missing(String)
        /// Only root can tell.
        case unknown
    }

    enum Role: Hashable, Sendable {
        case mappingServer
        /// - Parameter forwarding: as in mat-relay.yaml: auto, kernel or agent.
        case relay(forwarding: String)
    }

    /// UDP sockets for both families, as the daemon wants them.
    var sockets = Feature.there
    /// Several sockets at one port (SO_REUSEPORT).
    var sharedPorts = Feature.there
    /// Many datagrams by one system call (recvmmsg, sendmmsg).
    var batches = Feature.there
    /// A program of classic BPF before a socket (SO_ATTACH_FILTER).
    var filters = Feature.there
    /// Datagrams that the kernel cuts off one message (UDP_SEGMENT).
    var segments = Feature.there

    // What the kernel needs to forward by itself.

    /// Programs for links (BPF_PROG_TYPE_SCHED_CLS).
    var programs = Feature.there
    /// A way to tie them to links: tcx, or clsact with cls_bpf.
    var links = Feature.there
    /// A file system in which they outlive the relay.
    var pins = Feature.there
    /// Whether this relay has a program there now; `nil` if only root can tell.
    var isForwarding: Bool?
}

extension DoctorFindings {
    static func kernel(_ facts: KernelFacts, of role: KernelFacts.Role) -> [DoctorFinding] {
        switch role {
        case .mappingServer:
            serving(facts, "imsd", [filters(facts.filters)])
        case .relay(let forwarding):
            serving(facts, "mat-relay", [segments(facts.segments)]) + kernelForwarding(facts, forwarding)
        }
    }

    /// - Parameter others: what this daemon needs beside what both do.
    private static func serving(_ facts: KernelFacts, _ daemon: String, _ others: [DoctorFinding?]) -> [DoctorFinding] {
        var findings: [DoctorFinding] = []
        if case .missing(let reason) = facts.sockets {
            findings.append(
                DoctorFinding(
                    .problem, "kernel", "the kernel gives no UDP socket for both families (\(reason)), so \(daemon) can't listen",
                    remedy:
                        "take `ipv6.disable=1` off the kernel's command line, or load the module ipv6; the sysctl net.ipv6.conf.all.disable_ipv6 switches IPv6 off and leaves such sockets"
                ))
        } else if case .missing(let reason) = facts.sharedPorts {
            findings.append(
                DoctorFinding(
                    .problem, "kernel", "sockets can't share a port (\(reason)), and \(daemon), which has one for each thread, does not start",
                    remedy: "run it on Linux 3.9 or later, outside of sandboxes that only imitate a kernel"))
        }
        if case .missing(let reason) = facts.batches {
            findings.append(
                DoctorFinding(
                    .problem, "kernel", "recvmmsg and sendmmsg are refused (\(reason)), so \(daemon) hears nothing",
                    remedy: "in a container, let its seccomp profile pass both, as Docker's and Podman's own do"))
        }
        findings += others.compactMap { $0 }
        return findings.isEmpty ? [DoctorFinding(.ok, "kernel", "has what \(daemon) needs of sockets")] : findings
    }

    private static func filters(_ feature: KernelFacts.Feature) -> DoctorFinding? {
        guard case .missing(let reason) = feature else { return nil }
        return DoctorFinding(
            .warning, "kernel", "sockets take no filter (\(reason)): in a flood imsd itself looks at every datagram, and nodes get fewer answers",
            remedy: "run it on a kernel with socket filters, as every distribution's is; in a container, let its seccomp profile pass setsockopt")
    }

    private static func segments(_ feature: KernelFacts.Feature) -> DoctorFinding? {
        guard case .missing(let reason) = feature else { return nil }
        return DoctorFinding(
            .note, "kernel", "the kernel cuts no datagrams off larger messages (\(reason)), so forwarding takes more processor time",
            remedy: "Linux 4.18 or later has UDP_SEGMENT")
    }

    private static func kernelForwarding(_ facts: KernelFacts, _ forwarding: String) -> [DoctorFinding] {
        guard forwarding != "agent" else { return [] }
        let isRequired = forwarding == "kernel"
        let otherwise = "packets are forwarded by the process, which takes more processor time"
        switch facts.programs {
        case .unknown:
            return [DoctorFinding(.note, "kernel", "only root can tell whether the kernel can forward for mat-relay", remedy: "run it as root")]
        case .missing(let reason):
            return [
                DoctorFinding(
                    isRequired ? .problem : .note, "kernel",
                    "the kernel takes no programs for links (\(reason)): \(isRequired ? "with `forwarding: kernel` mat-relay does not start" : otherwise)",
                    remedy:
                        "a kernel with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_ACT, in a container with CAP_BPF and CAP_NET_ADMIN; or `forwarding: agent`"
                )
            ]
        case .there: break
        }
        if case .missing(let reason) = facts.links {
            return [
                DoctorFinding(
                    isRequired ? .warning : .note, "kernel", "programs can't be tied to links (\(reason)): \(otherwise)",
                    remedy: "Linux 6.6 or later (tcx), or `modprobe sch_ingress cls_bpf` for kernels before; or `forwarding: agent`")
            ]
        }
        if case .missing(let reason) = facts.pins {
            return [
                DoctorFinding(
                    .note, "kernel", "\(reason), so the kernel stops forwarding whenever mat-relay does, as at each restart",
                    remedy: "`mount -t bpf bpf /sys/fs/bpf`; systemd does it at boot")
            ]
        }
        guard let isForwarding = facts.isForwarding else { return [] }
        return [
            isForwarding
                ? DoctorFinding(.ok, "kernel", "forwards packets for mat-relay")
                : DoctorFinding(
                    isRequired ? .warning : .note, "kernel", "could forward for mat-relay and does not: \(otherwise)",
                    remedy:
                        "give mat-relay CAP_BPF and CAP_NET_ADMIN (mat-relay-kernel.conf among its examples does, as a drop-in for the unit) and restart it; its log says why not; or `forwarding: agent`"
                )
        ]
    }
}
