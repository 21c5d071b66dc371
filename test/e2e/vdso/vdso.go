//go:build amd64

// Package vdso gives a User Mode Linux kernel a clock that its programs read
// without a system call.
//
// Such a kernel's own vDSO makes a system call of every reading, which costs 20
// to 90 µs there. A Go program reads the clock at each turn of its scheduler:
// two thirds of an idle kubelet's time went there. What is put in its place
// reads the processor's time stamp counter, as a vDSO on hardware does.
package vdso

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ticks reads the processor's time stamp counter.
func Ticks() uint64

// template returns the code of clockGettime, in which the numbers below stand
// for what Install fills in.
func template() (text *byte, length int)

const (
	baseTicks = 0x7e57c10c00000001 + iota
	scale
	baseRealtime
	baseMonotonic
)

// Steady says whether this processor's counter runs at one rate on all of its
// cores, whatever they do.
func Steady() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && bytes.Contains(info, []byte(" constant_tsc ")) && bytes.Contains(info, []byte(" nonstop_tsc "))
}

// tolerance is how far the new clock may be from the kernel's own, which moves
// on while it is read.
const tolerance = 50 * time.Millisecond

// Install replaces clock_gettime in the vDSO of the running User Mode Linux
// kernel, for all programs, those that run included. Rate is the counter's
// ticks per nanosecond. On any error the kernel is as it was.
func Install(rate float64) error {
	if rate < 0.1 || rate > 100 {
		return fmt.Errorf("a time stamp counter of %g ticks per nanosecond", rate)
	}
	address, err := auxiliary(sysinfoEHDR)
	if err != nil {
		return err
	}
	mem, err := os.OpenFile("/dev/mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	at, err := frame(address)
	if err != nil {
		return err
	}
	old := make([]byte, os.Getpagesize())
	if _, err := mem.ReadAt(old, at); err != nil {
		return err
	}
	text, err := code(rate)
	if err != nil {
		return err
	}
	patched, err := patch(old, text)
	if err != nil {
		return err
	}
	if _, err := mem.WriteAt(patched, at); err != nil {
		return err
	}
	if err := check(); err != nil {
		_, undo := mem.WriteAt(old, at)
		return errors.Join(err, undo)
	}
	return nil
}

// sysinfoEHDR is AT_SYSINFO_EHDR, the vDSO's address.
const sysinfoEHDR = 33

// auxiliary returns a value of this process's auxiliary vector.
func auxiliary(key uint64) (uint64, error) {
	vector, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		return 0, err
	}
	for ; len(vector) >= 16; vector = vector[16:] {
		if binary.NativeEndian.Uint64(vector) == key {
			return binary.NativeEndian.Uint64(vector[8:]), nil
		}
	}
	return 0, errors.New("the kernel gives programs no vDSO")
}

// frame returns the physical address of a page of this process.
func frame(address uint64) (int64, error) {
	pages, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return 0, err
	}
	defer pages.Close()
	var entry [8]byte
	size := uint64(os.Getpagesize())
	if _, err := pages.ReadAt(entry[:], int64(address/size*8)); err != nil {
		return 0, err
	}
	const present, number = 1 << 63, 1<<55 - 1
	e := binary.NativeEndian.Uint64(entry[:])
	if e&present == 0 || e&number == 0 {
		return 0, errors.New("the vDSO's page is not known")
	}
	return int64(e & number * size), nil
}

// patch returns the vDSO's page with the code in it and a jump to it from
// clock_gettime. It lies over the table of sections, which is not for running
// programs.
func patch(page, text []byte) ([]byte, error) {
	file, err := elf.NewFile(bytes.NewReader(page))
	if err != nil {
		return nil, fmt.Errorf("the vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return nil, fmt.Errorf("the vDSO: %w", err)
	}
	sections := binary.LittleEndian.Uint64(page[0x28:]) // e_shoff
	if sections > uint64(len(page)) || uint64(len(page))-sections < uint64(len(text)) {
		return nil, fmt.Errorf("the vDSO has no room for %d bytes from %d on", len(text), sections)
	}
	for _, symbol := range symbols {
		if symbol.Name != "__vdso_clock_gettime" {
			continue
		}
		const length = 5 // of the jump
		entry := symbol.Value % uint64(len(page))
		if symbol.Size < length || entry+length > sections {
			return nil, fmt.Errorf("the vDSO's clock_gettime has %d bytes at %d", symbol.Size, entry)
		}
		patched := bytes.Clone(page)
		copy(patched[sections:], text)
		patched[entry] = 0xe9 // JMP rel32
		binary.LittleEndian.PutUint32(patched[entry+1:], uint32(sections-entry-length))
		return patched, nil
	}
	return nil, errors.New("the vDSO has no clock_gettime")
}

// code returns clockGettime for a counter of that rate.
func code(rate float64) ([]byte, error) {
	realtime, err := kernelClock(unix.CLOCK_REALTIME)
	if err != nil {
		return nil, err
	}
	monotonic, err := kernelClock(unix.CLOCK_MONOTONIC)
	if err != nil {
		return nil, err
	}
	text := bytes.Clone(unsafe.Slice(template()))
	for placeholder, value := range map[uint64]uint64{
		baseTicks: Ticks(), scale: uint64((1 << 32) / rate),
		baseRealtime: uint64(realtime), baseMonotonic: uint64(monotonic),
	} {
		number := binary.LittleEndian.AppendUint64(nil, placeholder)
		if bytes.Count(text, number) != 1 {
			return nil, fmt.Errorf("the code has no place for %x", placeholder)
		}
		binary.LittleEndian.PutUint64(text[bytes.Index(text, number):], value)
	}
	return text, nil
}

// kernelClock asks the kernel itself.
func kernelClock(clock uintptr) (time.Duration, error) {
	var t unix.Timespec
	if _, _, errno := unix.Syscall(unix.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		return 0, errno
	}
	return time.Duration(t.Nano()), nil
}

// check compares the clock of this program, which reads it as all do, with the
// kernel's.
func check() error {
	now := time.Now()
	kernel, err := kernelClock(unix.CLOCK_REALTIME)
	if err == nil && (time.Duration(now.UnixNano())-kernel).Abs() > tolerance {
		err = fmt.Errorf("the new clock says %v, the kernel's %v", now, time.Unix(0, int64(kernel)))
	}
	return err
}
