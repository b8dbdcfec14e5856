import Glibc

/// The terminal at standard output, and its keyboard, while something redraws itself there.
final class Terminal {
    private var before = termios()
    /// Keys come one by one, unseen; `nil` if there is no keyboard.
    let keyboard: Int32?

    static var isThere: Bool { isatty(STDOUT_FILENO) == 1 }

    /// As it is now; 80 by 24 if it does not say.
    static var size: (columns: Int, rows: Int) {
        var size = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return (80, 24) }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    /// Turns to the other screen, so that what was there comes back at the end.
    init() {
        if isatty(STDIN_FILENO) == 1, tcgetattr(STDIN_FILENO, &before) == 0 {
            keyboard = STDIN_FILENO
            var quiet = before
            // Ctrl-C and Ctrl-Z go on being signals.
            quiet.c_lflag &= ~tcflag_t(ICANON | ECHO)
            tcsetattr(STDIN_FILENO, TCSANOW, &quiet)
        } else {
            keyboard = nil
        }
        write("\u{1B}[?1049h\u{1B}[?25l")
    }

    func end() {
        write("\u{1B}[?25h\u{1B}[?1049l")
        if keyboard != nil { tcsetattr(STDIN_FILENO, TCSANOW, &before) }
    }

    func write(_ text: String) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            guard count > 0 || errno == EINTR || errno == EAGAIN else { return }
            rest = rest.dropFirst(max(0, count))
        }
    }

    /// Keys since the last time.
    func keys() -> [UInt8] {
        guard let keyboard else { return [] }
        var octets = [UInt8](repeating: 0, count: 64)
        let count = read(keyboard, &octets, octets.count)
        return Array(octets.prefix(max(0, count)))
    }
}
