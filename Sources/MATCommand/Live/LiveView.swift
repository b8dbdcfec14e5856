import Glibc
import MATCore
import MATRuntime
import MATSignal

/// Shows something again and again until a person has seen enough (q, Ctrl-C): in place on a terminal, else one after the other.
final class LiveView {
    /// Lines for a terminal of this size; `nil` where there is none.
    typealias Draw = (_ size: (columns: Int, rows: Int)?) throws -> [String]

    private let loop: EventLoop
    private let interval: Duration
    private let draw: Draw
    private let terminal: Terminal?
    private var failure: (any Error)?

    /// The first picture that can't be made ends it; a later one says why in its place, since a daemon may come back.
    static func run(every interval: Duration, _ draw: @escaping Draw) throws {
        let first = try draw(Terminal.isThere ? Terminal.size : nil)
        let loop = try EventLoop()
        let view = LiveView(loop, interval, draw, Terminal.isThere ? Terminal() : nil)
        defer { view.terminal?.end() }
        try view.listen()
        view.show(first)
        view.wait()
        try loop.run()
        if let failure = view.failure { throw failure }
    }

    private init(_ loop: EventLoop, _ interval: Duration, _ draw: @escaping Draw, _ terminal: Terminal?) {
        self.loop = loop
        self.interval = interval
        self.draw = draw
        self.terminal = terminal
    }

    private func listen() throws {
        try loop.onSignals([SIGINT, SIGTERM, SIGHUP, SIGWINCH]) { [unowned self] signal in
            if signal == SIGWINCH { redraw() } else { loop.stop() }
        }
        guard let terminal, let keyboard = terminal.keyboard else { return }
        try loop.watch(keyboard) { [unowned self] in
            let keys = terminal.keys()
            // A keyboard that is gone says so by nothing.
            if keys.isEmpty || keys.contains(where: { $0 == UInt8(ascii: "q") || $0 == UInt8(ascii: "Q") }) { loop.stop() } else { redraw() }
        }
    }

    private func wait() {
        loop.schedule(after: interval) { [unowned self] in
            redraw()
            wait()
        }
    }

    private func redraw() {
        do {
            show(try draw(terminal == nil ? nil : Terminal.size))
        } catch {
            // In a pipe the reader is to know that there is nothing more to come.
            guard terminal != nil else {
                failure = error
                return loop.stop()
            }
            show(["\(error)", "", "trying again; q ends this"])
        }
    }

    private func show(_ lines: [String]) {
        guard let terminal else {
            print(lines.joined(separator: "\n"))
            fflush(nil)
            return
        }
        let size = Terminal.size
        terminal.write(Frame.octets(Frame.fit(lines, columns: size.columns, rows: size.rows)))
    }
}
