# Loads a Homebrew formula, and installs with it for each system and processor that it names, from the archives of a release
# in the present folder: formula.rb FORMULA. Stands for the part of Homebrew's language that the formula uses.
require "digest"
require "fileutils"
require "tmpdir"

# A folder that files are installed into, as `bin.install "a"` or `bin.install "a" => "b"`.
Place = Struct.new(:files) do
  def install(what)
    from, to = what.is_a?(Hash) ? what.first : [what, File.basename(what)]
    raise "#{from} is not in the archive" unless File.file?(from)
    raise "#{from} is not executable" if to == "premigrate" && from == "premigrate" && !File.executable?(from)
    files << to
  end
end

class Formula
  MACHINES = %i[on_linux on_macos].product(%i[on_intel on_arm])
  class << self
    attr_accessor :machine, :archive, :sum, :facts
    %i[desc homepage version license].each { |name| define_method(name) { |value = nil| value ? (self.facts ||= {})[name] = value : facts[name] } }
    %i[on_linux on_macos on_intel on_arm].each { |name| define_method(name) { |&inside| inside.call if Formula.machine.include?(name) } }
    def url(value) = self.archive = value
    def sha256(value) = self.sum = value
    def test(&) = nil
  end
  %i[bin man1 doc bash_completion].each { |name| define_method(name) { @places ||= Hash.new { |all, key| all[key] = Place.new([]) }; @places[name] } }
  def installed = @places.transform_values(&:files)
end

text = File.read(ARGV.fetch(0))
release = Dir.pwd
installed = Formula::MACHINES.filter_map do |machine|
  Formula.machine = machine
  Object.send(:remove_const, :Premigrate) if defined?(Premigrate)
  Object.class_eval(text, ARGV.fetch(0))
  next unless Premigrate.archive
  archive = File.join(release, File.basename(Premigrate.archive))
  raise "#{archive} has another hash" unless Digest::SHA256.file(archive).hexdigest == Premigrate.sum
  Dir.mktmpdir do |folder|
    # Homebrew goes into the only folder of an archive.
    system("tar", "-xzf", archive, "-C", folder, exception: true)
    formula = Premigrate.new
    Dir.chdir(Dir.glob("#{folder}/*").first) { formula.install }
    "#{machine.map { |name| name.to_s.delete_prefix('on_') }.join(', ')}: #{formula.installed.values.flatten.join(' ')}"
  end
end
raise "the formula is for no machine" if installed.empty?
puts "#{Premigrate.facts[:version]}, with #{Premigrate.facts.keys.join(', ')}", installed
