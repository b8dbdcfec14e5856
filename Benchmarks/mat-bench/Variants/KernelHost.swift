import BenchSupport
import CLinux
import Foundation
import Glibc
import IMTKernel
import IMTPlan
import MATRuntime
import Namespaces
import Synchronization

/// A thread that runs work in one namespace, on chosen cores, and hands the outcome back.
func onThread<T>(_ body: @escaping () throws -> T) throws -> T {
    let done = DispatchSemaphore(value: 0)
    nonisolated(unsafe) let work = body
    nonisolated(unsafe) var result: Result<T, any Error>?
    let thread = Thread {
        result = Result { try work() }
        done.signal()
    }
    thread.stackSize = 1 << 20
    thread.start()
    done.wait()
    guard let result else { throw BenchError("a thread ended without a result") }
    return try result.get()
}

/// The product's kernel side on one host: the real library with its event loop, in a thread that has entered the namespace. It
/// keeps off the measured core, where it would have nothing to do anyway while packets flow.
final class KernelHost: @unchecked Sendable {
    private let stopped = DispatchSemaphore(value: 0)
    private var poster: Poster?
    // Both belong to the loop's thread.
    private var loop: EventLoop?
    private var kernel: IMTKernel?
    private let problems = Mutex<[String]>([])
    /// Of the loop's thread, for what it has used.
    private let thread = Mutex<Int>(0)

    /// - Parameter isMeasured: whether the agent carries packets itself, so that its time counts.
    init(_ host: Namespace, _ cores: Cores, _ configuration: IMTConfiguration, isMeasured: Bool = false) throws {
        let started = DispatchSemaphore(value: 0)
        nonisolated(unsafe) var failure: (any Error)?
        let thread = Thread { [self] in
            do {
                if isMeasured { try cores.pinToMeasured() } else { try cores.pinToOthers() }
                yieldToNobody()
                self.thread.withLock { $0 = Int(mat_thread_id()) }
                try host.enter()
                let loop = try EventLoop()
                let kernel = try IMTKernel(loop: loop, configuration: configuration) { [unowned self] in note($0) }
                _ = try kernel.start()
                self.loop = loop
                self.kernel = kernel
                poster = loop.poster
                started.signal()
                try loop.run()
            } catch {
                failure = error
                started.signal()
            }
            kernel = nil
            loop = nil
            stopped.signal()
        }
        thread.stackSize = 8 << 20
        thread.start()
        started.wait()
        if let failure { throw failure }
    }

    private func note(_ event: KernelEvent) {
        switch event {
        case .failed(let error): problems.withLock { $0.append(error.description) }
        case .repaired(let what), .warning(let what): problems.withLock { $0.append(what) }
        case .heldOutbound, .heldInbound, .heldEncapsulated, .gatewayArrival, .inPath, .datagramError, .resetHeld, .links, .translator, .programs,
            .used:
            break
        }
    }

    /// Runs `body` with the kernel side, in its thread.
    @discardableResult
    func ask<T>(_ body: @escaping (IMTKernel) throws -> T) throws -> T {
        guard let poster else { throw BenchError("the kernel side has not started") }
        let done = DispatchSemaphore(value: 0)
        nonisolated(unsafe) let work = body
        nonisolated(unsafe) var result: Result<T, any Error>?
        poster.post { [self] in
            if let kernel { result = Result { try work(kernel) } }
            done.signal()
        }
        done.wait()
        guard let result else { throw BenchError("the kernel side is gone") }
        return try result.get()
    }

    /// What went wrong by itself: a figure measured beside it would mean nothing.
    func check() throws {
        if let first = problems.withLock({ $0.first }) { throw BenchError("IMTKernel: \(first)") }
    }

    /// Processor time of the loop's thread so far, ns: the first number of its schedstat.
    func processorNanoseconds() -> Double {
        let text = try? String(contentsOfFile: "/proc/self/task/\(thread.withLock { $0 })/schedstat", encoding: .utf8)
        return text?.split(separator: " ").first.flatMap { Double($0) } ?? 0
    }

    /// A clean stop: removes all that was added.
    func stop() {
        _ = try? ask { [self] kernel in
            defer { loop?.stop() }
            try kernel.stop()
        }
        stopped.wait()
    }
}
