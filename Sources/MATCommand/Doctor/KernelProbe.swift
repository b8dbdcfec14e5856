import CLinux
import Foundation
import Glibc
import MATRuntime

/// Tries what `KernelFacts` holds on sockets and programs of its own, which end with it: nothing of the host is changed.
enum KernelProbe {
    /// - Parameters:
    ///   - forwards: whether sockets are for what a relay does.
    ///   - isRoot: else nothing is known of programs.
    ///   - pins: where the relay at the given port keeps its program.
    static func look(forwards: Bool, isRoot: Bool = false, pins: String = "", port: UInt16 = 0) -> KernelFacts {
        var facts = KernelFacts()
        var options = BoundSocket.Options()
        options.forwards = forwards
        do throws(SystemError) {
            let socket = try BoundSocket(port: 0, address: nil, options: options)
            facts.filters = takesFilter(socket.descriptor)
            facts.batches = takesBatches(socket.descriptor)
            facts.segments = takesSegments(socket.descriptor)
            options.isShared = true
            do throws(SystemError) { _ = try BoundSocket(port: 0, address: nil, options: options) } catch { facts.sharedPorts = .missing("\(error)") }
        } catch {
            facts.sockets = .missing("\(error)")
        }
        guard forwards else { return facts }
        (facts.programs, facts.links) = isRoot ? programs() : (.unknown, .unknown)
        facts.pins = mat_is_bpf_file_system(Self.mount(of: pins)) != 0 ? .there : .missing("\(pins) is in no file system of type bpf")
        if isRoot {
            let names = try? FileManager.default.contentsOfDirectory(atPath: "\(pins)/\(ProcessFiles.network(of: getpid()) ?? 0)-\(port)")
            facts.isForwarding = names?.isEmpty == false
        }
        return facts
    }

    private static func failure(_ what: String) -> KernelFacts.Feature { .missing("\(SystemError(what))") }

    // MARK: Sockets

    /// A program that lets everything by, and asks for a random number on the way as imsd's does (SKF_AD_RANDOM).
    private static func takesFilter(_ descriptor: Int32) -> KernelFacts.Feature {
        let program = [sock_filter(code: 0x20, jt: 0, jf: 0, k: 0xFFFF_F038), sock_filter(code: 0x06, jt: 0, jf: 0, k: .max)]
        return mat_attach_filter(descriptor, program, UInt16(program.count)) == 0 ? .there : failure("setsockopt SO_ATTACH_FILTER")
    }

    /// Nothing is there to be received, and of that the kernel says EAGAIN.
    private static func takesBatches(_ descriptor: Int32) -> KernelFacts.Feature {
        var message = mat_message()
        if mat_recvmmsg(descriptor, &message, 1, Int32(MSG_DONTWAIT)) < 0, errno != EAGAIN, errno != EINTR { return failure("recvmmsg") }
        return mat_sendmmsg(descriptor, &message, 0, 0) < 0 ? failure("sendmmsg") : .there
    }

    private static func takesSegments(_ descriptor: Int32) -> KernelFacts.Feature {
        var none: Int32 = 0
        return setsockopt(descriptor, Int32(mat_level_udp), Int32(mat_udp_segment), &none, socklen_t(MemoryLayout<Int32>.size)) == 0
            ? .there : failure("setsockopt UDP_SEGMENT")
    }

    // MARK: Programs

    /// Loads a program that does nothing, and asks for it to be tied to a link that does not exist: a kernel with tcx looks for the link.
    private static func programs() -> (programs: KernelFacts.Feature, links: KernelFacts.Feature) {
        // r0 = 0; exit.
        let nothing: [UInt64] = [0x0000_0000_0000_00B7, 0x0000_0000_0000_0095].map { UInt64(littleEndian: $0) }
        let program = mat_bpf_load_classifier("mat_doctor", nothing, UInt32(nothing.count), nil, 0)
        guard program >= 0 else { return (failure("bpf BPF_PROG_LOAD"), .unknown) }
        defer { close(program) }
        let link = mat_bpf_attach_tcx(program, UInt32(Int32.max), 46)
        if link >= 0 { close(link) }
        if link >= 0 || errno == ENODEV { return (.there, .there) }
        return (.there, classifiers())
    }

    /// Before tcx: the modules of clsact, built in, loaded, or there to be loaded.
    private static func classifiers() -> KernelFacts.Feature {
        var name = utsname()
        guard uname(&name) == 0 else { return .unknown }
        let release = withUnsafeBytes(of: name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
        let known = text("/proc/modules") + text("/lib/modules/\(release)/modules.builtin") + text("/lib/modules/\(release)/modules.dep")
        let missing = ["sch_ingress", "cls_bpf"].filter { !known.contains($0) }
        return missing.isEmpty ? .there : .missing("no tcx, and no \(missing.joined(separator: " and "))")
    }

    /// The nearest directory above what may not be there yet.
    private static func mount(of path: String) -> String {
        var directory = path
        while !directory.isEmpty, access(directory, F_OK) != 0 { directory = directory.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" } }
        return directory.isEmpty ? "/" : directory
    }
}
