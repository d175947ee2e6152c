/* A program that segments photos with nothing but C: bright pixels are class 1, others 0. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t crc;

static void put(FILE *file, const void *data, size_t size) {
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++) crc = crc & 1 ? 0xedb88320u ^ (crc >> 1) : crc >> 1;
    }
    fwrite(data, 1, size, file);
}

static void put32(FILE *file, uint32_t value) {
    uint8_t bytes[4] = {value >> 24, value >> 16, value >> 8, value};
    put(file, bytes, 4);
}

static void start(FILE *file, const char *name, uint32_t size) {
    put32(file, size);
    crc = 0xffffffffu;
    put(file, name, 4);
}

static void end(FILE *file) { put32(file, crc ^ 0xffffffffu); }

/* Write a greyscale PNG whose rows are stored, not compressed: one block of deflate for each row. */
static int write_png(const char *path, const uint8_t *classes, uint32_t width, uint32_t height) {
    FILE *file = fopen(path, "wb");
    if (!file) return 1;
    put(file, "\x89PNG\r\n\x1a\n", 8);
    start(file, "IHDR", 13);
    put32(file, width);
    put32(file, height);
    put(file, "\x08\0\0\0\0", 5);
    end(file);
    start(file, "IDAT", 2 + height * (5 + 1 + width) + 4);
    put(file, "\x78\x01", 2);
    uint32_t a = 1, b = 0;
    for (uint32_t y = 0; y < height; y++) {
        uint16_t size = width + 1, inverse = ~size;
        uint8_t head[6] = {y + 1 == height, size & 255, size >> 8, inverse & 255, inverse >> 8, 0};
        put(file, head, 6);
        put(file, classes + (size_t)y * width, width);
        b = (b + a) % 65521; /* of the filter byte, 0 */
        for (uint32_t x = 0; x < width; x++) {
            a = (a + classes[(size_t)y * width + x]) % 65521;
            b = (b + a) % 65521;
        }
    }
    put32(file, b << 16 | a);
    end(file);
    start(file, "IEND", 0);
    end(file);
    return fclose(file);
}

static int segment(const char *photo, const char *mask) {
    unsigned width, height;
    FILE *file = fopen(photo, "rb");
    if (!file || fscanf(file, "P6 %u %u 255", &width, &height) != 2 || fgetc(file) != '\n') return 1;
    size_t pixels = (size_t)width * height;
    uint8_t *rgb = malloc(3 * pixels), *classes = malloc(pixels);
    if (!rgb || !classes || fread(rgb, 3, pixels, file) != pixels) return 1;
    fclose(file);
    for (size_t i = 0; i < pixels; i++) classes[i] = rgb[3 * i] > 127;
    int failed = write_png(mask, classes, width, height);
    free(rgb);
    free(classes);
    return failed;
}

int main(int count, char **words) {
    if (count == 3) return segment(words[1], words[2]);
    char photo[4000], mask[4096];
    while (fgets(photo, sizeof photo, stdin)) {
        photo[strcspn(photo, "\n")] = 0;
        snprintf(mask, sizeof mask, "%s.png", photo);
        if (segment(photo, mask)) return 1;
        printf("%s\n", mask);
        fflush(stdout);
    }
    return 0;
}
