import Glibc
import MATRuntime
import MATSignal

/// What a node keeps across restarts: the highest sequence it signed for each HoA, and renewed certificates. Each file is
/// replaced whole, so a crash leaves the old or the new one.
struct StateDirectory {
    let path: String

    /// Makes the directory if it isn't there.
    init(path: String) throws(SystemError) {
        self.path = path
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else { throw SystemError("make the state directory \(path)") }
        guard access(path, W_OK) == 0 else { throw SystemError("write to the state directory \(path)") }
    }

    private init(existing path: String) { self.path = path }

    /// Whether it could be used, without making it.
    ///
    /// - Returns: what is there; `nil` if it is yet to be made.
    static func check(_ path: String) throws(SystemError) -> StateDirectory? {
        var status = stat()
        if stat(path, &status) == 0 {
            guard status.st_mode & S_IFMT == S_IFDIR else { throw SystemError("use \(path) as the state directory", errno: ENOTDIR) }
            guard access(path, W_OK | X_OK) == 0 else { throw SystemError("write to the state directory \(path)") }
            return StateDirectory(existing: path)
        }
        let parent = path.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" }
        guard access(parent.isEmpty ? "/" : parent, W_OK | X_OK) == 0 else { throw SystemError("make the state directory \(path)") }
        // These let root write, and take no directories.
        guard !["/proc", "/sys"].contains(where: { parent == $0 || parent.hasPrefix($0 + "/") }) else {
            throw SystemError("make the state directory \(path)", errno: EROFS)
        }
        return nil
    }

    private func sequencePath(_ hoa: HomeAddress) -> String { "\(path)/\(hoa).sequence" }
    func certificatePath(_ hoa: HomeAddress) -> String { "\(path)/\(hoa).certificate" }

    /// 0 if none was kept, or the file is no number: the protocol's clock rule and code 5 make up for that.
    func sequence(of hoa: HomeAddress) -> UInt64 {
        guard let text = try? TextFile.read(sequencePath(hoa), octetsMax: 64) else { return 0 }
        return UInt64(text.filter { !$0.isWhitespace }) ?? 0
    }

    func keep(_ sequence: UInt64, of hoa: HomeAddress) throws(SystemError) {
        try TextFile.replace(sequencePath(hoa), with: "\(sequence)\n", mode: 0o600)
    }
}
