/*
 * bcryptprimitives.dll for Wine 8, which lacks it: the Go runtime loads it at
 * start for ProcessPrng, its random seed. advapi32 has the same generator as
 * SystemFunction036, also known as RtlGenRandom.
 *
 * Because every Go program loads it, it also mends Wine's one wrong answer
 * that os.RemoveAll and so testing.T.TempDir trip over: NtSetInformationFile
 * says STATUS_NOT_IMPLEMENTED to the two information classes of Windows 10
 * for deleting and renaming. A Windows without them says
 * STATUS_INVALID_INFO_CLASS, upon which Go takes the older class. DllMain puts
 * a function that says so into ntdll's export table, where Go looks it up.
 */
#include <windows.h>
#include <winternl.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG size);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size)
{
    return SystemFunction036(data, (ULONG)size);
}

typedef NTSTATUS(NTAPI *set_information)(HANDLE, PIO_STATUS_BLOCK, PVOID, ULONG, ULONG);
static set_information inner;

static NTSTATUS NTAPI set_information_file(HANDLE file, PIO_STATUS_BLOCK io, PVOID data, ULONG size, ULONG class)
{
    NTSTATUS status = inner(file, io, data, size, class);
    return status == (NTSTATUS)0xC0000002 /* not implemented */ ? (NTSTATUS)0xC0000003 /* invalid class */ : status;
}

/* Makes GetProcAddress(module, name) answer with to, which has to lie within 4 GiB above module. */
static void replace_export(BYTE *module, const char *name, void *to)
{
    IMAGE_NT_HEADERS *nt = (IMAGE_NT_HEADERS *)(module + ((IMAGE_DOS_HEADER *)module)->e_lfanew);
    DWORD rva = nt->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_EXPORT].VirtualAddress, old;
    IMAGE_EXPORT_DIRECTORY *exports = (IMAGE_EXPORT_DIRECTORY *)(module + rva);
    DWORD *names = (DWORD *)(module + exports->AddressOfNames);
    DWORD *functions = (DWORD *)(module + exports->AddressOfFunctions);
    WORD *ordinals = (WORD *)(module + exports->AddressOfNameOrdinals);
    ULONG_PTR distance = (BYTE *)to - module;

    for (DWORD i = 0; i < exports->NumberOfNames && distance <= 0xFFFFFFFF; i++) {
        DWORD *entry = &functions[ordinals[i]];
        if (lstrcmpA((char *)module + names[i], name) != 0)
            continue;
        if (VirtualProtect(entry, sizeof *entry, PAGE_READWRITE, &old)) {
            *entry = (DWORD)distance;
            VirtualProtect(entry, sizeof *entry, old, &old);
        }
        return;
    }
}

BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, LPVOID reserved)
{
    if (reason == DLL_PROCESS_ATTACH) {
        BYTE *ntdll = (BYTE *)GetModuleHandleA("ntdll.dll");
        inner = (set_information)(void *)GetProcAddress((HMODULE)ntdll, "NtSetInformationFile");
        replace_export(ntdll, "NtSetInformationFile", set_information_file);
    }
    return TRUE;
}
